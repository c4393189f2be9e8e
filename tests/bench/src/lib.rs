//! Benchmarks that print a figure beside a peer's, from the same session on the same machine.
//!
//! Each module measures one thing and can print itself as a table; [`machine`] says where, [`figures`] holds the
//! arithmetic, [`peer`] runs what we compare with. Nothing here runs in tests.

pub mod machine;
pub mod figures;
pub mod peer;
pub mod programs;
pub mod local;
pub mod package;
pub mod deltas;
pub mod replay;
pub mod agent;
pub mod ingest;
pub mod gateway;
pub mod returning;
pub mod inference;
pub mod update;
pub mod size;
