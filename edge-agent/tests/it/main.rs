//! The agent as its callers see it: real sockets, a real state folder, restarts.

mod support;
mod doctor;
mod events;
mod identity;
mod nodes;
mod refusals;
mod restart;
