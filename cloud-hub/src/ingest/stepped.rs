//! Ingest in its caller's own time: the same decoding, planning and committing, a group at a time. For simulations.

use std::sync::Arc;

use bytes::Bytes;
use tributary_wire::{DeviceId, Micros};

use super::collect::Item;
use super::commit::Committer;
use super::{Counters, Ledger, Parts, Status};

/// Ingest without queues and timers.
pub struct Stepped<L: Ledger>(Committer<L>);

impl<L: Ledger> Stepped<L> {
    /// Ingest over these parts; [`super::recover`] comes first, as in a hub that starts.
    pub fn new(parts: Parts<L>) -> Self {
        Self(Committer::new(parts, Arc::<Counters>::default()))
    }

    /// Commits messages as one group that was begun with at this monotonic time, or turns them away while the disk
    /// refuses. Receipts leave before it returns.
    pub async fn group(&mut self, messages: Vec<(DeviceId, Bytes)>, received: Micros, begun: u64) {
        let items = messages.into_iter().map(|(device, message)| Item::of(device, message, received)).collect();
        match self.0.holding {
            Some(_) => self.0.turn_away(items).await,
            None => self.0.group(items, begun).await,
        }
    }

    /// When the disk is to be tried again, in microseconds of the monotonic clock; `None` while it takes what comes.
    pub fn probes_at(&self) -> Option<u64> {
        self.0.probes_at()
    }

    /// Tries, when that is due, whether the disk takes something again.
    pub async fn probe(&mut self) {
        self.0.probe().await;
    }

    /// Lets those go on who hold and have their turn, as a hub does that has nothing to commit. While the disk refuses
    /// nobody does.
    pub fn go_on(&mut self) {
        if self.0.holding.is_none() {
            self.0.go_on();
        }
    }

    /// Counts since it was made.
    pub fn status(&self) -> Status {
        self.0.counters.status()
    }
}
