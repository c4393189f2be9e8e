//! The bytes of one file, as readers see them and as a power cut leaves them.

use std::io;
use std::ops::AddAssign;

use rand::Rng;
use rand::rngs::StdRng;

/// What a drive writes as one.
const SECTOR: usize = 512;

/// What a simulated disk did to writes so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Harm {
    /// Writes that were not synced and that a power cut took.
    pub forgotten: u64,
    /// Writes of which a power cut left some sectors.
    pub torn: u64,
    /// Writes of which it took a part at once.
    pub short: u64,
}

impl AddAssign for Harm {
    fn add_assign(&mut self, other: Self) {
        self.forgotten += other.forgotten;
        self.torn += other.torn;
        self.short += other.short;
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    /// As readers see it.
    current: Vec<u8>,
    /// As the last sync left it, up to the first change that a failed sync left in doubt.
    durable: Vec<u8>,
    /// Since then, in order: a synced change after one in doubt stands above it.
    changes: Vec<(Change, Fate)>,
}

/// What a power cut makes of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Chance decides; the next sync keeps it.
    Unsynced,
    /// Chance decides, whatever later syncs say: the one that was to keep it failed.
    Doubtful,
    /// It is kept.
    Synced,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                if bytes.len() < offset + data.len() {
                    set_length(bytes, offset + data.len());
                }
                bytes[*offset..offset + data.len()].copy_from_slice(data);
            }
            Self::Length(length) => set_length(bytes, *length),
        }
    }

    /// The change in the pieces that a drive writes as one.
    fn sectors(&self) -> Vec<Self> {
        let &Self::Write(mut offset, ref data) = self else { return vec![self.clone()] };
        let mut pieces = Vec::new();
        let mut rest = &data[..];
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(rest.len().min(SECTOR - offset % SECTOR));
            pieces.push(Self::Write(offset, piece.to_vec()));
            offset += piece.len();
            rest = later;
        }
        pieces
    }
}

/// As `resize` with zeros does it, which costs a simulated disk most of its time in a build that is not optimised.
fn set_length(bytes: &mut Vec<u8>, length: usize) {
    match length.checked_sub(bytes.len()) {
        Some(more) => bytes.extend_from_slice(&vec![0; more]),
        None => bytes.truncate(length),
    }
}

impl Content {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.current
    }

    pub(super) fn length(&self) -> u64 {
        self.current.len() as u64
    }

    pub(super) fn write(&mut self, offset: usize, data: &[u8]) {
        self.change(Change::Write(offset, data.to_vec()));
    }

    pub(super) fn set_length(&mut self, length: usize) {
        if length != self.current.len() {
            self.change(Change::Length(length));
        }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.current);
        self.changes.push((change, Fate::Unsynced));
    }

    pub(super) fn sync(&mut self) {
        self.unsynced_become(Fate::Synced);
        let settled = self.changes.iter().take_while(|(_, fate)| *fate == Fate::Synced).count();
        for (change, _) in self.changes.drain(..settled) {
            change.apply(&mut self.durable);
        }
    }

    /// The kernel marks what it could not write as clean: no later sync writes it.
    pub(super) fn sync_failed(&mut self) {
        self.unsynced_become(Fate::Doubtful);
    }

    fn unsynced_become(&mut self, then: Fate) {
        let unsynced = self.changes.iter_mut().rev().take_while(|(_, fate)| *fate == Fate::Unsynced);
        unsynced.for_each(|(_, fate)| *fate = then);
    }

    /// What became of writes that were not synced.
    pub(super) fn crash(&mut self, mut coin: Option<&mut StdRng>) -> Harm {
        let mut harm = Harm::default();
        // Often a drive has written nothing yet, or all; between, any sectors and lengths.
        let share = coin.as_mut().map_or(0.0, |coin| [0.0, 0.2, 0.5, 0.8, 1.0][coin.random_range(0..5)]);
        for (change, fate) in std::mem::take(&mut self.changes) {
            let (mut kept, mut gone) = (false, false);
            for piece in change.sectors() {
                if fate == Fate::Synced || coin.as_mut().is_some_and(|coin| coin.random_bool(share)) {
                    piece.apply(&mut self.durable);
                    kept = true;
                } else {
                    gone = true;
                }
            }
            harm.torn += u64::from(kept && gone);
            harm.forgotten += u64::from(!kept && gone);
        }
        self.current = self.durable.clone();
        harm
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        *self = Self { current: bytes.to_vec(), durable: bytes.to_vec(), changes: Vec::new() };
    }

    pub(super) fn rot(&mut self, byte: usize) -> io::Result<()> {
        for bytes in [&mut self.current, &mut self.durable] {
            *bytes.get_mut(byte).ok_or(io::ErrorKind::UnexpectedEof)? ^= 1;
        }
        Ok(())
    }
}
