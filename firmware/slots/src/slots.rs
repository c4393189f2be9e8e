//! The slots themselves: what starts, what comes in, what is confirmed.

use embedded_storage::nor_flash::NorFlash;
use tributary_wire::link::{BLOB_PART, BlobKind, Held, Holds, IMAGE_HEAD, ImageHead};

use crate::image::{Sha512, Trusted};
use crate::incoming::Incoming;
use crate::journal::{Journal, KindState, State, Trial};
use crate::layout::{Layout, WrongLayout};

/// What is to be started of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boot {
    /// Where its payload lies in the flash.
    pub at: u32,
    /// Bytes of it.
    pub length: u32,
    /// Its version.
    pub version: u32,
    /// Whether it is on trial.
    pub trial: bool,
}

/// The slots of a node's models and firmware.
#[derive(Debug)]
pub struct Slots<'a, F> {
    pub(crate) flash: F,
    pub(crate) layout: Layout,
    pub(crate) trusted: Trusted<'a>,
    /// Whether a model's payload does what its own test cases say.
    pub(crate) cases: fn(&[u8]) -> bool,
    journal: Journal,
    pub(crate) state: State,
    pub(crate) incoming: Option<Incoming>,
    /// The last blob that was taken: whoever missed the answer offers it again.
    pub(crate) complete: Option<(BlobKind, u32, u32)>,
}

/// What a head says of a slot.
#[derive(Debug, Clone, Copy)]
struct Content {
    version: u32,
    rollback: u32,
    length: u32,
}

impl<'a, F: NorFlash> Slots<'a, F> {
    /// Reads the state. Without any, the first firmware slot is what runs: there the factory writes its image.
    ///
    /// # Panics
    /// When the layout does not fit the flash: both are constants of a board.
    pub fn open(
        mut flash: F,
        layout: Layout,
        trusted: Trusted<'a>,
        cases: fn(&[u8]) -> bool,
    ) -> Result<Self, F::Error> {
        let fits = layout.check(F::ERASE_SIZE as u32, F::WRITE_SIZE as u32, flash.capacity() as u32);
        assert_ne!(fits, Err(WrongLayout), "slots that the flash does not hold");
        let (journal, state) = Journal::open(&mut flash, layout.journal)?;
        let factory = State { firmware: KindState { active: Some(0), ..KindState::default() }, ..State::default() };
        let state = state.unwrap_or(factory);
        Ok(Self { flash, layout, trusted, cases, journal, state, incoming: None, complete: None })
    }

    /// The flash.
    pub fn release(self) -> F {
        self.flash
    }

    /// What is to be started now. Called once by what starts it (a loader for firmware, the program for its model): it
    /// begins a trial, or, when a trial was begun before, ends it. `None`: nothing in any slot can be trusted.
    pub fn boot(&mut self, kind: BlobKind) -> Result<Option<Boot>, F::Error> {
        let state = *self.state.of(kind);
        match state.trial {
            Trial::Staged => {
                if let Some(content) = self.verify(kind, state.other())? {
                    self.change(|all| all.of_mut(kind).trial = Trial::Started)?;
                    return Ok(Some(self.found(kind, state.other(), content, true)));
                }
                self.revert(kind)?;
            }
            // It was started and nobody confirmed it.
            Trial::Started => self.revert(kind)?,
            Trial::No => {}
        }
        if let Some(active) = state.active
            && let Some(content) = self.verify(kind, active)?
        {
            return Ok(Some(self.found(kind, active, content, false)));
        }
        // Flash that forgets: whatever else is signed for us is better than nothing, even below the floor, since nobody
        // on the line can damage a slot that is confirmed. A model is not: the program has one of its own.
        if kind == BlobKind::Firmware
            && let Some(content) = self.verify(kind, state.other())?
        {
            self.change(|all| all.of_mut(kind).active = Some(state.other()))?;
            return Ok(Some(self.found(kind, state.other(), content, false)));
        }
        Ok(None)
    }

    fn found(&self, kind: BlobKind, slot: u8, content: Content, trial: bool) -> Boot {
        let at = self.layout.slot(kind, slot) + IMAGE_HEAD as u32;
        Boot { at, length: content.length, version: content.version, trial }
    }

    fn revert(&mut self, kind: BlobKind) -> Result<(), F::Error> {
        let tried = self.content(kind, self.state.of(kind).other())?;
        self.change(|all| {
            let state = all.of_mut(kind);
            state.trial = Trial::No;
            state.reverted = tried.map_or(0, |tried| tried.version);
        })
    }

    /// What runs of a kind.
    pub fn holds(&mut self, kind: BlobKind) -> Holds {
        let state = *self.state.of(kind);
        let slot = if state.trial == Trial::Started { Some(state.other()) } else { state.active };
        // A head that cannot be read is as good as none; the next start finds that out.
        let content = slot.and_then(|slot| self.content(kind, slot).ok().flatten());
        let held = match (state.trial, state.reverted) {
            (Trial::Started, _) => Held::Trial,
            (_, 0) => Held::Confirmed,
            (_, version) => Held::Reverted { version },
        };
        Holds { kind, version: content.map_or(0, |content| content.version), rollback: state.floor, state: held }
    }

    /// Whether something runs on trial.
    pub fn is_on_trial(&self) -> bool {
        [BlobKind::Model, BlobKind::Firmware].iter().any(|kind| self.state.of(*kind).trial == Trial::Started)
    }

    /// Whether something is to be started on trial: a restart does.
    pub fn is_staged(&self) -> bool {
        [BlobKind::Model, BlobKind::Firmware].iter().any(|kind| self.state.of(*kind).trial == Trial::Staged)
    }

    /// The self-test passed: what is on trial stays, and nothing with a lower rollback index is taken any more.
    pub fn confirm(&mut self) -> Result<(), F::Error> {
        let mut next = self.state;
        for kind in [BlobKind::Model, BlobKind::Firmware] {
            let state = next.of_mut(kind);
            if state.trial == Trial::Started
                && let Some(content) = self.content(kind, state.other())?
            {
                let floor = state.floor.max(content.rollback);
                *state = KindState { active: Some(state.other()), trial: Trial::No, floor, reverted: 0 };
            }
        }
        if next != self.state { self.change(|all| *all = next) } else { Ok(()) }
    }

    /// Reads a payload that [`Self::boot`] found.
    pub fn read(&mut self, at: u32, bytes: &mut [u8]) -> Result<(), F::Error> {
        // Flash may give only whole words.
        for (at, out) in (at..).step_by(BLOB_PART).zip(bytes.chunks_mut(BLOB_PART)) {
            let (mut part, skip) = ([0; BLOB_PART + 64], at as usize % F::READ_SIZE);
            let whole = (skip + out.len()).next_multiple_of(F::READ_SIZE);
            self.flash.read(at - skip as u32, &mut part[..whole])?;
            out.copy_from_slice(&part[skip..skip + out.len()]);
        }
        Ok(())
    }

    pub(crate) fn head(&mut self, kind: BlobKind, slot: u32) -> Result<Option<[u8; IMAGE_HEAD]>, F::Error> {
        let mut head = [0; IMAGE_HEAD];
        self.read(slot, &mut head)?;
        Ok(ImageHead::read(&head).is_ok_and(|head| head.kind == kind).then_some(head))
    }

    fn content(&mut self, kind: BlobKind, slot: u8) -> Result<Option<Content>, F::Error> {
        let head = self.head(kind, self.layout.slot(kind, slot))?;
        let content =
            |head: ImageHead<'_>| Content { version: head.version, rollback: head.rollback, length: head.length };
        Ok(head.and_then(|head| ImageHead::read(&head).ok().map(content)))
    }

    /// Everything again, as before the first start: flash forgets, and somebody may have been at it.
    fn verify(&mut self, kind: BlobKind, slot: u8) -> Result<Option<Content>, F::Error> {
        let place = self.layout.slot(kind, slot);
        let Some(bytes) = self.head(kind, place)? else { return Ok(None) };
        let Ok(head) = self.trusted.head_of(kind, &bytes) else { return Ok(None) };
        if u64::from(head.length) + IMAGE_HEAD as u64 > u64::from(self.layout.size(kind)) {
            return Ok(None);
        }
        let (mut digest, mut at) = (Sha512::new(), 0);
        while at < head.length {
            let mut part = [0; BLOB_PART];
            let part = &mut part[..(head.length - at).min(BLOB_PART as u32) as usize];
            self.read(place + IMAGE_HEAD as u32 + at, part)?;
            digest.update(part);
            at += part.len() as u32;
        }
        let content = Content { version: head.version, rollback: head.rollback, length: head.length };
        Ok(digest.is(&head.hash).then_some(content))
    }

    pub(crate) fn change(&mut self, change: impl FnOnce(&mut State)) -> Result<(), F::Error> {
        let mut next = self.state;
        change(&mut next);
        self.journal.append(&mut self.flash, &next)?;
        self.state = next;
        Ok(())
    }
}
