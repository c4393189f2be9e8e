//! NOR flash that can lose power in any write or erase, and checks that it is used as such flash must be.

use std::cell::RefCell;
use std::rc::Rc;

use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};
use tributary_wire::link::BlobKind;

pub const PAGE: usize = 512;
const WORD: usize = 8;

/// What is left of the operation in which power went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survivor {
    Nothing,
    Half,
    /// Some bits of it, by chance.
    Some,
    /// All of it; only nobody heard that it was done.
    All,
}

#[derive(Debug, Clone)]
struct Inner {
    bytes: Vec<u8>,
    operations: u32,
    cut: Option<(u32, Survivor)>,
    dead: bool,
    chance: u32,
    /// What was ever found durable of each kind's rollback index.
    floors: [u32; 2],
}

/// The flash; a clone is the same flash, as after a restart.
#[derive(Debug, Clone)]
pub struct Flash(Rc<RefCell<Inner>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dead;

impl NorFlashError for Dead {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl Flash {
    pub fn new(size: usize) -> Self {
        let bytes = vec![0xff; size];
        Self(Rc::new(RefCell::new(Inner { bytes, operations: 0, cut: None, dead: false, chance: 1, floors: [0; 2] })))
    }

    /// Another flash with the same content.
    pub fn copy(&self) -> Self {
        Self(Rc::new(RefCell::new(Inner { operations: 0, cut: None, dead: false, ..self.0.borrow().clone() })))
    }

    /// Power goes in the operation after so many.
    pub fn cut_after(&self, operations: u32, survivor: Survivor) {
        let mut inner = self.0.borrow_mut();
        inner.chance = operations.wrapping_mul(2_654_435_761) | 1;
        inner.cut = Some((inner.operations + operations, survivor));
    }

    /// Whether power is gone. It comes back.
    pub fn power(&self) -> bool {
        let mut inner = self.0.borrow_mut();
        if inner.dead {
            inner.cut = None;
        }
        std::mem::take(&mut inner.dead)
    }

    pub fn operations(&self) -> u32 {
        self.0.borrow().operations
    }

    pub fn damage(&self, at: usize) {
        self.0.borrow_mut().bytes[at] ^= 0x10;
    }

    /// A kind's rollback index as a start finds it. It was written whole once, so no cut may ever take it back.
    pub fn found_floor(&self, kind: BlobKind, floor: u32) {
        let known = &mut self.0.borrow_mut().floors[usize::from(kind == BlobKind::Firmware)];
        assert!(floor >= *known, "the rollback index of {kind:?} fell from {known} to {floor}");
        *known = floor;
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.borrow().bytes.clone()
    }
}

impl Inner {
    fn operate(&mut self, at: usize, new: &[u8]) -> Result<(), Dead> {
        if self.dead {
            return Err(Dead);
        }
        let left = self.cut.map(|(cut, survivor)| (cut == self.operations, survivor));
        self.operations += 1;
        let Some((true, survivor)) = left else {
            self.bytes[at..at + new.len()].copy_from_slice(new);
            return Ok(());
        };
        self.dead = true;
        for (place, byte) in new.iter().enumerate() {
            let old = self.bytes[at + place];
            self.chance ^= self.chance << 13;
            self.chance ^= self.chance >> 17;
            self.chance ^= self.chance << 5;
            let mask = self.chance as u8;
            self.bytes[at + place] = match survivor {
                Survivor::Nothing => old,
                Survivor::Half if place >= new.len() / 2 => old,
                Survivor::Half | Survivor::All => *byte,
                Survivor::Some => (old & mask) | (byte & !mask),
            };
        }
        Err(Dead)
    }
}

impl ErrorType for Flash {
    type Error = Dead;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = 4;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Dead> {
        let inner = self.0.borrow();
        if inner.dead {
            return Err(Dead);
        }
        assert!(offset.is_multiple_of(4) && bytes.len().is_multiple_of(4), "a read of {} at {offset}", bytes.len());
        bytes.copy_from_slice(&inner.bytes[offset as usize..][..bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.0.borrow().bytes.len()
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Dead> {
        let (from, to) = (from as usize, to as usize);
        assert!(from.is_multiple_of(PAGE) && to.is_multiple_of(PAGE), "an erase of {from} to {to}");
        (from..to).step_by(PAGE).try_for_each(|page| self.0.borrow_mut().operate(page, &[0xff; PAGE]))
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Dead> {
        let at = offset as usize;
        assert!(at.is_multiple_of(WORD) && bytes.len().is_multiple_of(WORD), "a write of {} at {at}", bytes.len());
        for (place, word) in (at..).step_by(WORD).zip(bytes.chunks(WORD)) {
            let mut inner = self.0.borrow_mut();
            // A word is written once after an erase, torn or not.
            let erased = inner.dead || inner.bytes[place..place + WORD].iter().all(|byte| *byte == 0xff);
            assert!(erased, "the word at {place} was written before");
            inner.operate(place, word)?;
        }
        Ok(())
    }
}
