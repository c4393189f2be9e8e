//! What is remembered over a restart, in memory that a restart does not clear.
//!
//! After power came that memory holds anything, and a brown-out may stop a write half-way; so everything counts only
//! with its checksum, and is written before the checksum is.

use tributary_wire::link::{Crash, CrashKind, blob_checksum};

/// The end of a longer file name is kept: it says more than its beginning.
const FILE: usize = 48;
/// Starts, kind, uptime, place, length of the file name, file name.
const BYTES: usize = 4 + 1 + 8 + 4 + 1 + FILE;
const NO_CRASH: u8 = 0xff;

/// Memory for the crash record; a board puts it where a restart does not clear it.
#[derive(Debug, Clone)]
#[repr(C)]
pub struct CrashStore {
    checksum: u32,
    bytes: [u8; BYTES],
}

/// What a program finds at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Starts since power came, this one included.
    pub starts: u32,
    kind: Option<CrashKind>,
    uptime: u64,
    place: u32,
    file: [u8; FILE],
    length: u8,
}

impl Start {
    /// Why the program had to start again; `None` when power came, or when it was asked to.
    pub fn crash(&self) -> Option<Crash<'_>> {
        let file = core::str::from_utf8(self.file.get(..usize::from(self.length))?).unwrap_or_default();
        Some(Crash { kind: self.kind?, uptime: self.uptime, file, place: self.place })
    }
}

impl CrashStore {
    /// Memory as it is after power came.
    pub const fn blank() -> Self {
        Self { checksum: 0, bytes: [0; BYTES] }
    }

    /// Reads what the run before left, counts this start, and forgets the crash. `watchdog`: the hardware says that its
    /// watchdog restarted us, so a run that left no word was stopped by it.
    pub fn start(&mut self, watchdog: bool) -> Start {
        let known = self.checksum == blob_checksum(&self.bytes);
        let mut file = [0; FILE];
        let [starts @ .., _] = self.bytes.first_chunk::<5>().copied().unwrap_or_default();
        let mut start = Start { starts: 1, kind: None, uptime: 0, place: 0, file, length: 0 };
        if known {
            start.starts = u32::from_le_bytes(starts).saturating_add(1);
            start.kind = match self.bytes[4] {
                0 => Some(CrashKind::Panic),
                1 => Some(CrashKind::Fault),
                2 => Some(CrashKind::Watchdog),
                _ => None,
            };
            start.uptime = u64::from_le_bytes(part(&self.bytes, 5));
            start.place = u32::from_le_bytes(part(&self.bytes, 13));
            start.length = self.bytes[17].min(FILE as u8);
            file.copy_from_slice(&self.bytes[18..]);
            start.file = file;
        }
        if watchdog && start.kind.is_none() {
            start.kind = Some(CrashKind::Watchdog);
        }
        self.write(start.starts, NO_CRASH, 0, "", 0);
        start
    }

    /// Remembers a crash. Called from a panic handler: it allocates nothing, cannot fail and cannot panic.
    pub fn crash(&mut self, kind: CrashKind, uptime: u64, file: &str, place: u32) {
        let kind = match kind {
            CrashKind::Panic => 0,
            CrashKind::Fault => 1,
            CrashKind::Watchdog => 2,
        };
        let starts = u32::from_le_bytes(part(&self.bytes, 0));
        let mut from = file.len().saturating_sub(FILE);
        while !file.is_char_boundary(from) {
            from += 1;
        }
        self.write(starts, kind, uptime, file.get(from..).unwrap_or_default(), place);
    }

    fn write(&mut self, starts: u32, kind: u8, uptime: u64, file: &str, place: u32) {
        self.checksum = !blob_checksum(&self.bytes);
        self.bytes = [0; BYTES];
        self.bytes[..4].copy_from_slice(&starts.to_le_bytes());
        self.bytes[4] = kind;
        self.bytes[5..13].copy_from_slice(&uptime.to_le_bytes());
        self.bytes[13..17].copy_from_slice(&place.to_le_bytes());
        self.bytes[17] = file.len().min(FILE) as u8;
        for (to, byte) in self.bytes[18..].iter_mut().zip(file.bytes()) {
            *to = byte;
        }
        self.checksum = blob_checksum(&self.bytes);
    }
}

fn part<const N: usize>(bytes: &[u8; BYTES], from: usize) -> [u8; N] {
    core::array::from_fn(|at| bytes.get(from + at).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_lost_power_or_was_half_written_counts_for_nothing() {
        let mut whole = CrashStore::blank();
        for _ in 0..3 {
            whole.start(false);
        }
        whole.crash(CrashKind::Panic, 1, "x.rs", 2);
        assert_eq!(whole.clone().start(false).starts, 4);
        for bit in 0..8 * (BYTES + 4) {
            let mut changed = whole.clone();
            match changed.bytes.get_mut(bit / 8) {
                Some(byte) => *byte ^= 1 << (bit % 8),
                None => changed.checksum ^= 1 << (bit - 8 * BYTES),
            }
            let start = changed.start(false);
            assert_eq!((start.starts, start.crash()), (1, None), "bit {bit}");
        }
    }
}
