//! The byte form of every published version, and what happens to bytes that are not a message.

mod link;
mod link_image;
mod link_line;
mod link_v1;
mod malformed;
mod v1;
mod v2;
mod v3;
