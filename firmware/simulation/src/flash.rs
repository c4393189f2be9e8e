//! Flash that is memory: emulated machines have none that a program could write.

use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};

/// The secret key of emulated nodes. It is no secret.
pub const EMULATOR_SEED: [u8; 32] = *b"anybody may sign for an emulator";
/// Its public half: emulated nodes take what it signed.
pub const EMULATOR_KEY: [u8; 32] = [
    0x87, 0x7e, 0x75, 0x0d, 0x36, 0x2a, 0xde, 0x9a, 0x97, 0x3a, 0x01, 0x83, 0xbb, 0x54, 0x61, 0x51, 0xb2, 0x85, 0xc3,
    0xc4, 0x0f, 0x61, 0xe0, 0x6a, 0xa4, 0x5d, 0x8e, 0x31, 0xef, 0x01, 0x89, 0xa9,
];

/// NOR flash in somebody's memory: pages of 4 kB, words of 8 bytes, and bits that only an erase sets.
#[derive(Debug)]
pub struct RamFlash<'a>(pub &'a mut [u8]);

/// Something that such flash cannot do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Misuse(NorFlashErrorKind);

impl NorFlashError for Misuse {
    fn kind(&self) -> NorFlashErrorKind {
        self.0
    }
}

impl RamFlash<'_> {
    fn part(&mut self, from: u32, to: u32, unit: usize) -> Result<&mut [u8], Misuse> {
        let (from, to) = (from as usize, to as usize);
        if !from.is_multiple_of(unit) || !to.is_multiple_of(unit) {
            return Err(Misuse(NorFlashErrorKind::NotAligned));
        }
        self.0.get_mut(from..to).ok_or(Misuse(NorFlashErrorKind::OutOfBounds))
    }
}

impl ErrorType for RamFlash<'_> {
    type Error = Misuse;
}

impl ReadNorFlash for RamFlash<'_> {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Misuse> {
        bytes.copy_from_slice(self.part(offset, offset.saturating_add(bytes.len() as u32), 1)?);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.0.len()
    }
}

impl NorFlash for RamFlash<'_> {
    const WRITE_SIZE: usize = 8;
    const ERASE_SIZE: usize = 4096;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Misuse> {
        self.part(from, to, Self::ERASE_SIZE)?.fill(0xff);
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Misuse> {
        let part = self.part(offset, offset.saturating_add(bytes.len() as u32), Self::WRITE_SIZE)?;
        // What was not erased keeps its zeros, as on a chip.
        part.iter_mut().zip(bytes).for_each(|(place, byte)| *place &= byte);
        Ok(())
    }
}
