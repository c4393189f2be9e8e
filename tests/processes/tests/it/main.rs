//! Whole programs, as a user has them: killed, refused, recounted. And the rules of the house.

mod commands;
mod discard;
mod kills;
mod repository;
mod sabotage;
mod tools;
