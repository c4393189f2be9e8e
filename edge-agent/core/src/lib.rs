//! What the device decides. No I/O, no clock, no threads: `now` is passed in, chance is a seed.
//!
//! [`outbox::Outbox`] says which batch to publish next and what a receipt frees, [`backoff::Backoff`] how long to wait
//! before the next attempt to connect, [`challengers::Challengers`] which package answers whom, [`download::Ranking`] from
//! whom a file is fetched, [`fit::check`] whether a package can run here, [`refresh::Pace`] when metadata is asked for,
//! [`sampling::Sampler`] which observations are sent, [`keeping::Class`] what is given up first, [`node::Station`] how a
//! sensor node is answered,
//! [`updater::Updater`] how a model line moves from one package to another and back, [`lines::Lines`] which assignment
//! counts and what it means for every line. Each is driven by a shell that carries out what it says.

pub mod backoff;
mod chance;
pub mod challengers;
pub mod download;
pub mod fit;
pub mod keeping;
pub mod node;
pub mod outbox;
pub mod transport;
pub mod renewal;
pub mod refresh;
pub mod sampling;
pub mod updater;
pub mod lines;
pub mod words;
#[cfg(test)]
mod tests;

use std::time::Duration;

use tributary_wire::Micros;

/// The two clocks of a device, read together by the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Wall time; it may jump. Used where an instant was signed by somebody else.
    pub wall: Micros,
    /// Time since this process began; it never jumps. Used for every waiting time.
    pub monotonic: Duration,
}
