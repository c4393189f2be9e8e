//! What is remembered over a restart, in memory that a restart does not clear.
//!
//! After power came that memory holds anything, and a brown-out or a crash may stop a write at any byte. So there are two
//! copies, each with a number and a checksum. A write goes into the one that does not count; the other one stands until
//! it is whole. Another program may read what this one left (a trial that failed, an update), so the form has a number too.

use core::sync::atomic::{Ordering, compiler_fence};

use tributary_wire::link::{Crash, CrashKind, blob_checksum};

/// The end of a longer file name is kept: it says more than its beginning.
const FILE: usize = 48;
/// Changes with what the bytes below mean.
const FORM: u8 = 2;
/// Form, kind, length of the file name, number of the copy, starts, dropped records, place, uptime, file name.
const BYTES: usize = 3 + 4 * 4 + 8 + FILE;
/// A checksum before them.
const COPY: usize = 4 + BYTES;
const NO_CRASH: u8 = 0xff;

/// Memory for what is remembered; a board puts it where a restart does not clear it, and where every one of its programs
/// looks for it.
#[derive(Debug, Clone)]
#[repr(C)]
pub struct CrashStore {
    copies: [[u8; COPY]; 2],
}

/// What a program finds at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Starts since power came, this one included.
    pub starts: u32,
    /// Records that earlier runs lost, since power came: see [`crate::Node::dropped`].
    pub dropped: u32,
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

/// The content of a copy that counts, but for its crash.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    number: u32,
    starts: u32,
    dropped: u32,
}

impl CrashStore {
    /// Memory as it is after power came.
    pub const fn blank() -> Self {
        Self { copies: [[0; COPY]; 2] }
    }

    /// Reads what the run before left, counts this start, and forgets the crash. `watchdog`: the hardware says that its
    /// watchdog restarted us, so a run that left no word was stopped by it.
    pub fn start(&mut self, watchdog: bool) -> Start {
        let mut start = Start { starts: 1, dropped: 0, kind: None, uptime: 0, place: 0, file: [0; FILE], length: 0 };
        let mut counts = Counts::default();
        if let Some((at, found)) = self.newest() {
            let bytes = &self.copies[at];
            start.starts = found.starts.saturating_add(1);
            start.dropped = found.dropped;
            start.kind = match bytes[5] {
                0 => Some(CrashKind::Panic),
                1 => Some(CrashKind::Fault),
                2 => Some(CrashKind::Watchdog),
                _ => None,
            };
            start.length = bytes[6].min(FILE as u8);
            start.place = number(bytes, 19);
            start.uptime = u64::from(number(bytes, 23)) | u64::from(number(bytes, 27)) << 32;
            start.file.copy_from_slice(&bytes[31..]);
            counts = found;
        }
        if watchdog && start.kind.is_none() {
            start.kind = Some(CrashKind::Watchdog);
        }
        self.write(Counts { starts: start.starts, ..counts }, NO_CRASH, 0, "", 0);
        start
    }

    /// Remembers how many records would be lost if the program ended now.
    pub fn note_dropped(&mut self, records: u32) {
        let counts = self.counts();
        self.write(Counts { dropped: records, ..counts }, NO_CRASH, 0, "", 0);
    }

    /// Remembers a crash. Called from a panic handler: it allocates nothing, cannot fail and cannot panic.
    pub fn crash(&mut self, kind: CrashKind, uptime: u64, file: &str, place: u32) {
        let kind = match kind {
            CrashKind::Panic => 0,
            CrashKind::Fault => 1,
            CrashKind::Watchdog => 2,
        };
        let mut from = file.len().saturating_sub(FILE);
        while !file.is_char_boundary(from) {
            from += 1;
        }
        self.write(self.counts(), kind, uptime, file.get(from..).unwrap_or_default(), place);
    }

    fn counts(&self) -> Counts {
        self.newest().map_or_else(Counts::default, |(_, counts)| counts)
    }

    /// Which copy counts, and what it says.
    fn newest(&self) -> Option<(usize, Counts)> {
        let read = |at: usize| {
            let bytes = &self.copies[at];
            let good = number(bytes, 0) == blob_checksum(&bytes[4..]) && bytes[4] == FORM;
            let counts = Counts { number: number(bytes, 7), starts: number(bytes, 11), dropped: number(bytes, 15) };
            good.then_some((at, counts))
        };
        match (read(0), read(1)) {
            (Some(first), Some(second)) => {
                // The number may go round.
                let later = second.1.number.wrapping_sub(first.1.number) as i32 > 0;
                Some(if later { second } else { first })
            }
            (first, second) => first.or(second),
        }
    }

    fn write(&mut self, counts: Counts, kind: u8, uptime: u64, file: &str, place: u32) {
        let at = self.newest().map_or(0, |(at, _)| 1 - at);
        self.copies[at] = copy(counts, kind, uptime, file, place);
        // Not mixed with the write that comes after it, which goes into the other copy.
        compiler_fence(Ordering::SeqCst);
    }
}

/// The copy behind the one that said `counts`.
fn copy(counts: Counts, kind: u8, uptime: u64, file: &str, place: u32) -> [u8; COPY] {
    let mut bytes = [0; COPY];
    (bytes[4], bytes[5], bytes[6]) = (FORM, kind, file.len().min(FILE) as u8);
    let words = [counts.number.wrapping_add(1), counts.starts, counts.dropped, place, uptime as u32];
    let words = words.into_iter().chain([(uptime >> 32) as u32]).flat_map(u32::to_le_bytes);
    for (to, byte) in bytes[7..].iter_mut().zip(words) {
        *to = byte;
    }
    for (to, byte) in bytes[31..].iter_mut().zip(file.bytes()) {
        *to = byte;
    }
    let checksum = blob_checksum(&bytes[4..]);
    bytes[..4].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn number(bytes: &[u8; COPY], from: usize) -> u32 {
    u32::from_le_bytes(core::array::from_fn(|at| bytes.get(from + at).copied().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_three_starts() -> CrashStore {
        let mut store = CrashStore::blank();
        for _ in 0..3 {
            store.start(false);
        }
        store.note_dropped(40);
        store
    }

    #[test]
    fn memory_that_lost_power_counts_for_nothing() {
        let noise = core::array::from_fn(|copy| core::array::from_fn(|at| (at * 37 + copy * 101) as u8));
        for mut store in [CrashStore::blank(), CrashStore { copies: noise }] {
            let start = store.start(false);
            assert_eq!((start.starts, start.dropped, start.crash()), (1, 0, None));
            assert_eq!(store.start(false).starts, 2);
        }
    }

    #[test]
    fn one_changed_bit_costs_at_most_what_was_written_last() {
        let mut whole = after_three_starts();
        whole.crash(CrashKind::Panic, 1, "x.rs", 2);
        for bit in 0..8 * 2 * COPY {
            let mut changed = whole.clone();
            changed.copies[bit / 8 / COPY][bit / 8 % COPY] ^= 1 << (bit % 8);
            let start = changed.start(false);
            assert_eq!((start.starts, start.dropped), (4, 40), "bit {bit}");
        }
    }

    /// A write stopped after any of its bytes, from either end: a compiler may write them in any order.
    #[test]
    fn a_torn_write_leaves_what_stood_before_it() {
        let writes: [fn(&mut CrashStore); 3] = [
            |store| {
                store.start(false);
            },
            |store| store.note_dropped(41),
            |store| store.crash(CrashKind::Fault, u64::MAX, "a/long/name/of/a/file.rs", u32::MAX),
        ];
        let seen = |store: &CrashStore| {
            let start = store.clone().start(false);
            (start.starts, start.dropped, start.kind)
        };
        for before in [after_three_starts(), CrashStore::blank()] {
            for write in writes {
                let mut after = before.clone();
                write(&mut after);
                for count in 0..=2 * COPY {
                    let (mut torn, mut from_behind) = (before.clone(), before.clone());
                    torn.copies.as_flattened_mut()[..count].copy_from_slice(&after.copies.as_flattened()[..count]);
                    let rest = 2 * COPY - count;
                    from_behind.copies.as_flattened_mut()[rest..].copy_from_slice(&after.copies.as_flattened()[rest..]);
                    for torn in [torn, from_behind] {
                        let found = seen(&torn);
                        assert!(found == seen(&before) || found == seen(&after), "{count} bytes: {found:?}");
                    }
                }
            }
        }
    }
}
