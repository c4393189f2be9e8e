//! The state of all slots, written again as a whole with every change, into two pages in turn.
//!
//! An entry is 64 bytes: number, state, CRC-32C of both. The one with the highest number whose checksum holds counts.
//! A page is erased only when it is full and the newest entry is written in the other, or when the other is full: the
//! newest entry is never in a page that is being erased. After a torn write the next entry goes behind whatever is there.

use embedded_storage::nor_flash::NorFlash;
use tributary_wire::link::{BlobKind, blob_checksum};

/// Bytes of an entry.
const ENTRY: usize = 64;
const CHECKED: usize = ENTRY - 4;

/// What stands of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trial {
    /// None.
    #[default]
    No,
    /// The other slot is whole; it will be started.
    Staged,
    /// It was started.
    Started,
}

/// What stands of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KindState {
    /// The slot that is confirmed; `None`: what the program was built with.
    pub active: Option<u8>,
    pub trial: Trial,
    /// The lowest rollback index that is taken.
    pub floor: u32,
    /// The version that last did not pass; 0: none.
    pub reverted: u32,
}

impl KindState {
    /// The slot that is not confirmed.
    pub fn other(&self) -> u8 {
        self.active.map_or(0, |active| 1 - (active & 1))
    }
}

/// A blob that is coming, so that it goes on after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coming {
    pub kind: BlobKind,
    pub length: u32,
    pub checksum: u32,
    /// Pages of its slot that are written.
    pub pages: u32,
}

/// The state of all slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct State {
    pub model: KindState,
    pub firmware: KindState,
    pub coming: Option<Coming>,
}

impl State {
    pub fn of(&self, kind: BlobKind) -> &KindState {
        match kind {
            BlobKind::Model => &self.model,
            BlobKind::Firmware => &self.firmware,
        }
    }

    pub fn of_mut(&mut self, kind: BlobKind) -> &mut KindState {
        match kind {
            BlobKind::Model => &mut self.model,
            BlobKind::Firmware => &mut self.firmware,
        }
    }

    fn write(&self, number: u32) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        for (kind, at) in [(&self.model, 4), (&self.firmware, 16)] {
            bytes[at] = kind.active.unwrap_or(0xff);
            bytes[at + 1] = kind.trial as u8;
            bytes[at + 4..at + 8].copy_from_slice(&kind.floor.to_le_bytes());
            bytes[at + 8..at + 12].copy_from_slice(&kind.reverted.to_le_bytes());
        }
        if let Some(coming) = &self.coming {
            bytes[28] = if coming.kind == BlobKind::Model { 1 } else { 2 };
            for (at, number) in [(32, coming.length), (36, coming.checksum), (40, coming.pages)] {
                bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
            }
        }
        let checksum = blob_checksum(&bytes[..CHECKED]).to_le_bytes();
        bytes[CHECKED..].copy_from_slice(&checksum);
        bytes
    }

    fn read(bytes: &[u8; ENTRY]) -> Option<(u32, Self)> {
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if number(CHECKED) != blob_checksum(&bytes[..CHECKED]) {
            return None;
        }
        let kind = |at: usize| KindState {
            active: Some(bytes[at]).filter(|slot| *slot < 2),
            trial: match bytes[at + 1] {
                1 => Trial::Staged,
                2 => Trial::Started,
                _ => Trial::No,
            },
            floor: number(at + 4),
            reverted: number(at + 8),
        };
        let coming = match bytes[28] {
            1 => Some(BlobKind::Model),
            2 => Some(BlobKind::Firmware),
            _ => None,
        };
        let coming = coming.map(|kind| Coming { kind, length: number(32), checksum: number(36), pages: number(40) });
        Some((number(0), Self { model: kind(4), firmware: kind(16), coming }))
    }
}

/// Where the newest entry is.
#[derive(Debug)]
pub struct Journal {
    pages: [u32; 2],
    page: usize,
    /// Where in that page the next entry goes.
    next: u32,
    number: u32,
}

impl Journal {
    /// Finds the newest entry; `None` when there is none at all.
    pub fn open<F: NorFlash>(flash: &mut F, pages: [u32; 2]) -> Result<(Self, Option<State>), F::Error> {
        let mut newest: Option<(u32, State)> = None;
        let mut journal = Self { pages, page: 0, next: F::ERASE_SIZE as u32, number: 0 };
        for (page, begin) in pages.into_iter().enumerate() {
            let (mut free, mut at, mut here) = (0, 0, false);
            let mut entry = [0; ENTRY];
            while at < F::ERASE_SIZE as u32 {
                flash.read(begin + at, &mut entry)?;
                at += ENTRY as u32;
                if entry.iter().any(|byte| *byte != 0xff) {
                    free = at;
                }
                if let Some((number, state)) = State::read(&entry)
                    && newest.is_none_or(|(newest, _)| number > newest)
                {
                    (newest, here) = (Some((number, state)), true);
                }
            }
            if here {
                (journal.page, journal.next) = (page, free);
            }
        }
        journal.number = newest.map_or(0, |(number, _)| number);
        Ok((journal, newest.map(|(_, state)| state)))
    }

    /// Writes the state; when this returns, it counts.
    pub fn append<F: NorFlash>(&mut self, flash: &mut F, state: &State) -> Result<(), F::Error> {
        if self.next >= F::ERASE_SIZE as u32 {
            let page = 1 - self.page;
            // Until the entry below is written, the newest one is in the page that is not touched.
            flash.erase(self.pages[page], self.pages[page] + F::ERASE_SIZE as u32)?;
            (self.page, self.next) = (page, 0);
        }
        let at = self.pages[self.page] + self.next;
        // A write that fails may have written something: its place is spent.
        self.next += ENTRY as u32;
        let number = self.number.saturating_add(1);
        flash.write(at, &state.write(number))?;
        self.number = number;
        Ok(())
    }
}
