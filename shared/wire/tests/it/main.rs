//! The byte form of every published version, and what happens to bytes that are not a message.

mod malformed;
mod v1;
mod v2;
