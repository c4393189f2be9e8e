//! What happens to real programs in the field, one after the other: disks that fill up or refuse, clocks that jump,
//! networks that lose, two of what there must be one of. Each story ends with the count: the lake holds what was
//! promised, once, and nothing else.

mod clocks;
mod disks;
mod doubles;
mod network;
mod read_only;
mod shim;

pub use shim::Shim;
