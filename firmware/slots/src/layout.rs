//! Which part of the flash is what.

use tributary_wire::link::{BlobKind, IMAGE_HEAD};

/// Places in the flash, in bytes from its beginning; all are multiples of what it erases at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Two pages for the journal.
    pub journal: [u32; 2],
    /// The two slots of models.
    pub model: [u32; 2],
    /// Bytes of each.
    pub model_size: u32,
    /// The two slots of firmware.
    pub firmware: [u32; 2],
    /// Bytes of each.
    pub firmware_size: u32,
}

/// A layout that its flash cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongLayout;

impl Layout {
    /// Where a slot begins.
    pub(crate) fn slot(&self, kind: BlobKind, slot: u8) -> u32 {
        let slots = match kind {
            BlobKind::Model => self.model,
            BlobKind::Firmware => self.firmware,
        };
        slots[usize::from(slot & 1)]
    }

    /// Bytes of a slot.
    pub(crate) fn size(&self, kind: BlobKind) -> u32 {
        match kind {
            BlobKind::Model => self.model_size,
            BlobKind::Firmware => self.firmware_size,
        }
    }

    /// Whether pages of `erase` bytes and writes of `write` bytes fit it, within `capacity`, and nothing overlaps.
    pub(crate) fn check(&self, erase: u32, write: u32, capacity: u32) -> Result<(), WrongLayout> {
        let Self { journal, model, model_size, firmware, firmware_size } = *self;
        let mut parts = [
            (journal[0], erase),
            (journal[1], erase),
            (model[0], model_size),
            (model[1], model_size),
            (firmware[0], firmware_size),
            (firmware[1], firmware_size),
        ];
        parts.sort_unstable();
        let aligned = parts.iter().all(|(at, size)| at % erase == 0 && size % erase == 0);
        let apart = parts.windows(2).all(|pair| u64::from(pair[0].0) + u64::from(pair[0].1) <= u64::from(pair[1].0));
        let within = u64::from(parts[5].0) + u64::from(parts[5].1) <= u64::from(capacity);
        // Two whole parts hold a head, an entry of the journal is a few writes, and pages hold several of each.
        let pages = erase.is_multiple_of(256) && 64_u32.is_multiple_of(write) && model_size.min(firmware_size) >= erase;
        let heads = erase as usize > IMAGE_HEAD;
        if aligned && apart && within && pages && heads { Ok(()) } else { Err(WrongLayout) }
    }
}
