//! What the committer has to do, measured, for [`Flow`] to share it out.

use std::sync::Arc;
use std::time::Duration;

use cloud_hub_core::flow::{Flow, FlowSettings};
use cloud_hub_lake::Lake;
use tokio::time::sleep;
use tributary_process::clock::Clock;

use super::collect::{Item, Origin};
use super::commit::Failure;
use super::{Answers, Parts};
use crate::catalog::batches::Numbering;

/// While somebody holds, how often it is looked whether they may go on.
const LOOK: Duration = Duration::from_millis(100);

/// The load, and what follows from it for each stream of a device.
pub(super) struct Load {
    flow: Flow<Numbering>,
    answers: Arc<dyn Answers>,
    lake: Arc<Lake>,
    reserve: u64,
    clock: Arc<dyn Clock>,
}

impl Load {
    pub(super) fn new<L>(parts: &Parts<L>) -> Self {
        let config = &parts.config;
        let reserve = config.disk_reserve.0;
        let flow = Flow::new(FlowSettings {
            most: config.window,
            patience: config.patience.0,
            queue_bytes: parts.queue_bytes,
            disk_reserve: reserve,
        });
        Self { flow, answers: parts.answers.clone(), lake: parts.lake.clone(), reserve, clock: parts.clock.clone() }
    }

    fn now(&self) -> Duration {
        Duration::from_micros(self.clock.monotonic())
    }

    /// A group is to be committed.
    pub(super) fn took_in(&mut self, items: &[Item]) {
        let now = self.now();
        for item in items.iter().filter(|item| matches!(item.origin, Origin::Device(_))) {
            if let Some(of) = item.numbering() {
                self.flow.received(now, of, item.message.len() as u64);
            }
        }
    }

    /// It was committed in this time; what waits behind it decides over windows.
    pub(super) fn committed(&mut self, items: &[Item], took: Duration) {
        let bytes = items.iter().map(|item| item.message.len() as u64).sum();
        // The group is still in memory, and yet done.
        let behind = self.answers.waiting_bytes().saturating_sub(bytes);
        self.flow.committed(self.now(), bytes, took, behind);
        self.measure(bytes);
    }

    /// Looks at what waits and at the disk; `done` of it is committed.
    pub(super) fn measure(&mut self, done: u64) {
        let waiting = self.answers.waiting_bytes().saturating_sub(done);
        self.flow.measured(self.now(), waiting, self.disk_free());
    }

    /// Only the file system says; it is asked anew each time, because others write too.
    fn disk_free(&self) -> Option<u64> {
        self.lake.disk().free(self.lake.root()).ok()
    }

    /// Refuses while only the reserve is left.
    pub(super) fn check_disk(&self) -> Result<(), Failure> {
        match self.disk_free() {
            Some(free) if free < self.reserve => {
                Err(Failure::DiskReserve { free, reserve: self.reserve, folder: self.lake.root().to_owned() })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn window(&mut self, of: &Numbering) -> u16 {
        self.flow.window(of)
    }

    /// Streams that hold because of the load.
    pub(super) fn holding(&self) -> u64 {
        self.flow.holding() as u64
    }

    /// Returns when it is time to look whether those who hold may go on; never while nobody does.
    pub(super) async fn eased(&self) {
        match self.flow.anybody_holds() {
            true => sleep(LOOK).await,
            false => std::future::pending().await,
        }
    }

    /// Those whose turn it is.
    pub(super) fn go_on(&mut self) -> Vec<Numbering> {
        self.measure(0);
        self.flow.go_on()
    }
}
