//! Taking a blob: offered, in parts, checked, staged.

use embedded_storage::nor_flash::NorFlash;
use tributary_wire::link::{BLOB_PART, BlobKind, BlobProblem, BlobReceiver, BlobStep, IMAGE_HEAD};

use crate::incoming::{FIRST, Incoming, write};
use crate::journal::{Coming, State, Trial};
use crate::slots::Slots;

/// The largest payload of a model.
const MODEL: usize = 4096;

impl<F: NorFlash> Slots<'_, F> {
    /// A blob is offered: how far it has come, or why it is not taken.
    pub fn offer(&mut self, blob: u32, kind: BlobKind, length: u32, checksum: u32) -> BlobStep {
        if self.complete == Some((kind, length, checksum)) {
            return BlobStep::Complete;
        }
        if self.is_on_trial() || self.is_staged() {
            return BlobStep::Refused(BlobProblem::Busy);
        }
        if let Some(incoming) = self.incoming.as_ref().filter(|incoming| incoming.receiver.is(blob, length, checksum)) {
            return incoming.step();
        }
        self.incoming = None;
        if length as usize <= IMAGE_HEAD {
            return BlobStep::Refused(BlobProblem::Malformed);
        }
        let begin = || BlobReceiver::new(blob, length, checksum, self.layout.size(kind));
        let fresh = match begin() {
            Ok(receiver) => Incoming::new(kind, length, checksum, receiver),
            Err(problem) => return BlobStep::Refused(problem),
        };
        let (step, again) = (fresh.step(), begin());
        self.incoming = Some(fresh);
        // It was coming before a restart: what its whole pages hold need not come again.
        if let Some(coming) = self.state.coming
            && (coming.kind, coming.length, coming.checksum) == (kind, length, checksum)
            && coming.pages > 0
            && let Ok(receiver) = again
            && let Ok(Some(resumed)) = self.resume(Incoming::new(kind, length, checksum, receiver), coming.pages)
        {
            let step = resumed.step();
            self.incoming = Some(resumed);
            return step;
        }
        step
    }

    fn resume(&mut self, mut incoming: Incoming, pages: u32) -> Result<Option<Incoming>, F::Error> {
        let slot = self.layout.slot(incoming.kind, self.state.of(incoming.kind).other());
        let end = pages.saturating_mul(F::ERASE_SIZE as u32).min(incoming.length);
        let Some(head) = self.head(incoming.kind, slot)? else { return Ok(None) };
        let Ok(head) = self.trusted.head_of(incoming.kind, &head).map(|head| head.hash) else { return Ok(None) };
        incoming.hash = head;
        while incoming.taken < end {
            let mut part = [0; BLOB_PART];
            self.flash.read(slot + incoming.taken, &mut part)?;
            let count = (end - incoming.taken).min(BLOB_PART as u32) as usize;
            incoming.took(&part[..count]);
        }
        // All of it is there only when its last check is what was interrupted: let the last page come again.
        Ok((incoming.taken < incoming.length).then_some(incoming))
    }

    /// A part came; how far the blob has come with it. `None`: no blob of that number is coming.
    pub fn part(&mut self, blob: u32, offset: u32, bytes: &[u8]) -> Option<BlobStep> {
        let mut incoming = self.incoming.take()?;
        if !incoming.expects(blob, offset, bytes) {
            let step = incoming.step();
            self.incoming = Some(incoming);
            return Some(step);
        }
        let step = match self.take(&mut incoming, bytes) {
            Ok(step) => step,
            Err(problem) => BlobStep::Refused(problem),
        };
        if let BlobStep::Next(_) = step {
            self.incoming = Some(incoming);
        }
        Some(step)
    }

    fn take(&mut self, incoming: &mut Incoming, bytes: &[u8]) -> Result<BlobStep, BlobProblem> {
        let (kind, offset) = (incoming.kind, incoming.taken as usize);
        let slot = self.layout.slot(kind, self.state.of(kind).other());
        let end = offset + bytes.len();
        if offset < FIRST {
            incoming.first[offset..end].copy_from_slice(bytes);
            if end == FIRST || end == incoming.length as usize {
                incoming.hash = self.check_head(incoming)?;
                let Incoming { length, checksum, .. } = *incoming;
                let coming = Some(Coming { kind, length, checksum, pages: 0 });
                self.change(|all| all.coming = coming).map_err(|_| BlobProblem::Store)?;
                write(&mut self.flash, slot, 0, &incoming.first[..end]).map_err(|_| BlobProblem::Store)?;
            }
        } else {
            write(&mut self.flash, slot, incoming.taken, bytes).map_err(|_| BlobProblem::Store)?;
        }
        incoming.took(bytes);
        if incoming.taken == incoming.length {
            return self.finish(incoming);
        }
        if incoming.taken.is_multiple_of(F::ERASE_SIZE as u32) {
            let pages = incoming.taken / F::ERASE_SIZE as u32;
            let note = |all: &mut State| all.coming = all.coming.map(|coming| Coming { pages, ..coming });
            self.change(note).map_err(|_| BlobProblem::Store)?;
        }
        Ok(incoming.step())
    }

    /// Before anything is erased for it.
    fn check_head(&self, incoming: &Incoming) -> Result<[u8; 64], BlobProblem> {
        let head = incoming.first.first_chunk().ok_or(BlobProblem::Malformed)?;
        let head = self.trusted.head_of(incoming.kind, head)?;
        if head.length.checked_add(IMAGE_HEAD as u32) != Some(incoming.length) {
            return Err(BlobProblem::Malformed);
        }
        if head.rollback < self.state.of(incoming.kind).floor { Err(BlobProblem::Older) } else { Ok(head.hash) }
    }

    fn finish(&mut self, incoming: &Incoming) -> Result<BlobStep, BlobProblem> {
        let kind = incoming.kind;
        let good = match incoming.step() {
            BlobStep::Complete if !incoming.is_signed() => Err(BlobProblem::Signature),
            BlobStep::Complete if kind == BlobKind::Model => self.try_model(incoming.length),
            BlobStep::Refused(problem) => Err(problem),
            _ => Ok(()),
        };
        self.change(|all| {
            all.coming = None;
            if good.is_ok() {
                let state = all.of_mut(kind);
                (state.trial, state.reverted) = (Trial::Staged, 0);
            }
        })
        .map_err(|_| BlobProblem::Store)?;
        good?;
        self.complete = Some((kind, incoming.length, incoming.checksum));
        Ok(BlobStep::Complete)
    }

    fn try_model(&mut self, length: u32) -> Result<(), BlobProblem> {
        let mut bytes = [0; MODEL];
        let length = length as usize - IMAGE_HEAD;
        let bytes = bytes.get_mut(..length).ok_or(BlobProblem::Room { room: (MODEL + IMAGE_HEAD) as u32 })?;
        let at = self.layout.slot(BlobKind::Model, self.state.model.other()) + IMAGE_HEAD as u32;
        self.read(at, bytes).map_err(|_| BlobProblem::Store)?;
        if (self.cases)(bytes) { Ok(()) } else { Err(BlobProblem::Cases) }
    }
}
