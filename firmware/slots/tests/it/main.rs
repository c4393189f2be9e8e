//! Slots on a simulated flash: power that goes at every write, blobs that are not what they should be.

mod blobs;
mod flash;
mod cuts;
mod node;
