//! Whole programs, as a user has them: killed, refused, recounted. And the rules of the house.

mod commands;
mod cut;
mod discard;
mod interop;
mod kills;
mod node;
mod process;
mod python_client;
mod python_tuf;
mod repository;
mod sampling;
mod sabotage;
mod tools;
mod tuf;
