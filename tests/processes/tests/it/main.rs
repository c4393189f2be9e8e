//! Whole programs, as a user has them: killed, refused, recounted. And the rules of the house.

mod agent;
mod backup;
mod commands;
mod cut;
mod discard;
mod doctor;
mod faults;
mod fetching;
mod interop;
mod kills;
mod model;
mod namespace;
mod node;
mod process;
mod python_client;
mod python_tuf;
mod repository;
mod returning;
mod sabotage;
mod sampling;
mod source;
mod tools;
mod tuf;
mod upgrade;
mod week;
