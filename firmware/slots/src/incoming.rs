//! A blob on its way into a slot: what has come, and the checks that go along.

use embedded_storage::nor_flash::NorFlash;
use tributary_wire::link::{BLOB_PART, BlobKind, BlobReceiver, BlobStep, IMAGE_HEAD};

use crate::image::Sha512;

/// Parts that hold the head; nothing of a blob is written before they are here and good.
pub const FIRST: usize = IMAGE_HEAD.next_multiple_of(BLOB_PART);

/// What is known of a blob that is coming.
pub struct Incoming {
    pub kind: BlobKind,
    pub length: u32,
    pub checksum: u32,
    pub receiver: BlobReceiver,
    /// Bytes that came.
    pub taken: u32,
    /// Of the payload.
    digest: Sha512,
    /// The first bytes, until they are checked.
    pub first: [u8; FIRST],
    /// What the payload's hash must be; known with the head.
    pub hash: [u8; 64],
}

impl Incoming {
    pub fn new(kind: BlobKind, length: u32, checksum: u32, receiver: BlobReceiver) -> Self {
        let (digest, first, hash) = (Sha512::new(), [0xff; FIRST], [0; 64]);
        Self { kind, length, checksum, receiver, taken: 0, digest, first, hash }
    }

    /// Whether `bytes` is the part to go on with: the next one, and whole.
    pub fn expects(&self, blob: u32, offset: u32, bytes: &[u8]) -> bool {
        let whole = bytes.len() == BLOB_PART || offset.saturating_add(bytes.len() as u32) == self.length;
        whole && self.receiver.expects(blob, offset, bytes).is_some()
    }

    /// These bytes are the next ones, and stored, or in [`Self::first`].
    pub fn took(&mut self, bytes: &[u8]) {
        let head = IMAGE_HEAD.saturating_sub(self.taken as usize).min(bytes.len());
        self.digest.update(&bytes[head..]);
        self.receiver.part(bytes);
        self.taken += bytes.len() as u32;
    }

    /// Whether the payload is what the head was signed for.
    pub fn is_signed(&self) -> bool {
        self.digest.is(&self.hash)
    }

    pub fn step(&self) -> BlobStep {
        self.receiver.step()
    }
}

impl core::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.receiver.fmt(f)
    }
}

/// Writes bytes that begin at a multiple of what is written at once; the rest of the last write stays erased.
/// Erases every page before its first byte.
pub fn write<F: NorFlash>(flash: &mut F, slot: u32, offset: u32, bytes: &[u8]) -> Result<(), F::Error> {
    for (at, part) in (offset..).step_by(BLOB_PART).zip(bytes.chunks(BLOB_PART)) {
        let place = slot + at;
        if at.is_multiple_of(F::ERASE_SIZE as u32) {
            flash.erase(place, place + F::ERASE_SIZE as u32)?;
        }
        let mut padded = [0xff; BLOB_PART];
        padded[..part.len()].copy_from_slice(part);
        flash.write(place, &padded[..part.len().next_multiple_of(F::WRITE_SIZE)])?;
    }
    Ok(())
}
