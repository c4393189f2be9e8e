//! Models and firmware that come over the line, and the self-test that what is on trial has to pass.

use embedded_storage::nor_flash::NorFlash;
use tributary_slots::Slots;
use tributary_wire::link::{BlobKind, BlobProblem, BlobStep, Holds, UpV1};

/// Windows that a program or model on trial must have analysed: sensor, timer, features and score have then worked.
const WINDOWS: u32 = 4;
/// What did not pass by then does not pass: the node starts again, and with it what was there before.
const TRIAL: u64 = 120_000_000;
/// A restart into what was just taken waits so long for the answer to leave.
const RESTART_WITHIN: u64 = 500_000;

/// Where models and firmware go. [`Slots`] is one; without flash there is none.
pub trait Updates {
    /// A blob is offered.
    fn offer(&mut self, blob: u32, kind: BlobKind, length: u32, checksum: u32) -> BlobStep;
    /// A part came. `None`: no blob of that number is coming.
    fn part(&mut self, blob: u32, offset: u32, bytes: &[u8]) -> Option<BlobStep>;
    /// What runs of a kind.
    fn holds(&mut self, kind: BlobKind) -> Holds;
    /// Whether something runs on trial.
    fn is_on_trial(&self) -> bool;
    /// What is on trial stays. Whether that could be written.
    fn confirm(&mut self) -> bool;
}

impl<F: NorFlash> Updates for Slots<'_, F> {
    fn offer(&mut self, blob: u32, kind: BlobKind, length: u32, checksum: u32) -> BlobStep {
        Slots::offer(self, blob, kind, length, checksum)
    }

    fn part(&mut self, blob: u32, offset: u32, bytes: &[u8]) -> Option<BlobStep> {
        Slots::part(self, blob, offset, bytes)
    }

    fn holds(&mut self, kind: BlobKind) -> Holds {
        Slots::holds(self, kind)
    }

    fn is_on_trial(&self) -> bool {
        Slots::is_on_trial(self)
    }

    fn confirm(&mut self) -> bool {
        Slots::confirm(self).is_ok()
    }
}

impl core::fmt::Debug for dyn Updates + '_ {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("updates")
    }
}

/// What the node does about its updates.
#[derive(Debug, Default)]
pub(crate) struct Care<'a> {
    updates: Option<&'a mut dyn Updates>,
    answer: Option<(u32, BlobStep)>,
    /// Kinds to be told of: model, firmware.
    due: [bool; 2],
    /// The agent has stored something of this life: it hears us, and we it.
    heard: bool,
    restart_at: Option<u64>,
}

impl<'a> Care<'a> {
    pub(crate) fn set(&mut self, updates: &'a mut dyn Updates) {
        self.updates = Some(updates);
    }

    pub(crate) fn tell_all(&mut self) {
        self.due = [self.updates.is_some(); 2];
    }

    /// The agent acknowledged all through a number.
    pub(crate) fn heard_of(&mut self, through: u32) {
        self.heard |= through > 0;
    }

    pub(crate) fn offer(&mut self, now: u64, blob: u32, kind: BlobKind, length: u32, checksum: u32) {
        let step = match &mut self.updates {
            Some(updates) => updates.offer(blob, kind, length, checksum),
            None => BlobStep::Refused(BlobProblem::Kind),
        };
        self.answer(now, blob, step);
    }

    /// Takes a part; `false` when it belongs to nothing that was offered.
    pub(crate) fn part(&mut self, now: u64, blob: u32, offset: u32, bytes: &[u8]) -> bool {
        let step = self.updates.as_mut().and_then(|updates| updates.part(blob, offset, bytes));
        if let Some(step) = step {
            self.answer(now, blob, step);
        }
        step.is_some()
    }

    fn answer(&mut self, now: u64, blob: u32, step: BlobStep) {
        self.answer = Some((blob, step));
        if step == BlobStep::Complete {
            self.restart_at.get_or_insert(now.saturating_add(RESTART_WITHIN));
        }
    }

    /// The self-test: so many windows since the start, and an agent that answers, or else no newer one could ever come.
    pub(crate) fn test(&mut self, now: u64, windows: u32) {
        let Some(updates) = self.updates.as_mut().filter(|updates| updates.is_on_trial()) else { return };
        if windows >= WINDOWS && self.heard && updates.confirm() {
            self.tell_all();
        } else if now >= TRIAL {
            self.restart_at.get_or_insert(now);
        }
    }

    pub(crate) fn must_restart(&self, now: u64) -> bool {
        self.restart_at.is_some_and(|at| now >= at)
    }

    /// What to say of it.
    pub(crate) fn say(&mut self) -> Option<UpV1<'static>> {
        if let Some((blob, step)) = self.answer.take() {
            return Some(UpV1::Blob { blob, step });
        }
        let updates = self.updates.as_mut()?;
        for (due, kind) in self.due.iter_mut().zip([BlobKind::Model, BlobKind::Firmware]) {
            if core::mem::take(due) {
                return Some(UpV1::Holds(updates.holds(kind)));
            }
        }
        None
    }
}
