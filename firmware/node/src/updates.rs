//! Models and firmware that come over the line, and the self-test that what is on trial has to pass.

use embedded_storage::nor_flash::NorFlash;
use tributary_slots::Slots;
use tributary_wire::link::{BlobKind, BlobProblem, BlobStep, Holds, UpV1, WINDOW};

/// Windows that a program or model on trial must have analysed: sensor, timer, features and score have then worked.
const WINDOWS: u32 = 4;
/// What did not pass by then does not pass: the node starts again, and with it what was there before.
const TRIAL: u64 = 120_000_000;
/// A restart into what was just taken waits at least so long: the answer leaves first.
const RESTART_AFTER: u64 = 500_000;
/// It also waits until the agent has all records, which a restart forgets. Of an agent that is slow to answer there are
/// always a few on the line; after this a line's window of them is put up with, and counted as lost.
const LINE_EMPTIES: u64 = 10_000_000;
/// A line so bad that the node falls behind never empties the store. A whole store takes half an hour on a good one; after
/// this time with an agent the update is not held up any longer, and what still waits is counted as lost.
const STORE_EMPTIES: u64 = 3_600_000_000;

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
    staged: Option<Staged>,
    /// A trial did not pass.
    failed: bool,
}

/// Something was taken, and a restart tries it.
#[derive(Debug, Clone, Copy)]
struct Staged {
    last: u64,
    /// Time with an agent since then. Without one nothing empties the store, and a trial would not pass.
    waited: u64,
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
            self.staged.get_or_insert(Staged { last: now, waited: 0 });
        }
    }

    /// The self-test: so many windows since the start, and an agent that answers, or else no newer one could ever come.
    pub(crate) fn test(&mut self, now: u64, windows: u32) {
        let Some(updates) = self.updates.as_mut().filter(|updates| updates.is_on_trial()) else { return };
        if windows >= WINDOWS && self.heard && updates.confirm() {
            self.tell_all();
        } else if now >= TRIAL {
            self.failed = true;
        }
    }

    /// Whether to restart now; `waiting` records would be lost.
    pub(crate) fn must_restart(&mut self, now: u64, open: bool, waiting: u32) -> bool {
        let Some(staged) = &mut self.staged else { return self.failed };
        let passed = now.saturating_sub(core::mem::replace(&mut staged.last, now));
        staged.waited = staged.waited.saturating_add(if open { passed } else { 0 });
        let most = match staged.waited {
            ..RESTART_AFTER => return self.failed,
            RESTART_AFTER..LINE_EMPTIES => 0,
            LINE_EMPTIES..STORE_EMPTIES => WINDOW,
            STORE_EMPTIES.. => u32::MAX,
        };
        self.failed || waiting <= most
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
