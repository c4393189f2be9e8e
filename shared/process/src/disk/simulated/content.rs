//! The bytes of one file, as readers see them and as a power cut leaves them.

use std::io;

use rand::Rng;
use rand::rngs::StdRng;

/// What a drive writes as one.
const SECTOR: usize = 512;

#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    /// As readers see it.
    current: Vec<u8>,
    /// As the last sync left it.
    durable: Vec<u8>,
    /// Since then, in order.
    unsynced: Vec<Change>,
    /// A sync failed: what was unsynced then stays in doubt, whatever later syncs say.
    doubtful: Vec<Change>,
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
                    bytes.resize(offset + data.len(), 0);
                }
                bytes[*offset..offset + data.len()].copy_from_slice(data);
            }
            Self::Length(length) => bytes.resize(*length, 0),
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
        self.unsynced.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            change.apply(&mut self.durable);
        }
    }

    /// The kernel marks what it could not write as clean: no later sync writes it.
    pub(super) fn sync_failed(&mut self) {
        self.doubtful.append(&mut self.unsynced);
    }

    pub(super) fn crash(&mut self, coin: Option<&mut StdRng>) {
        let mut changes = std::mem::take(&mut self.doubtful);
        changes.append(&mut self.unsynced);
        if let Some(coin) = coin {
            // Often a drive has written nothing yet, or all; between, any sectors and lengths.
            let share = [0.0, 0.2, 0.5, 0.8, 1.0][coin.random_range(0..5)];
            for piece in changes.iter().flat_map(Change::sectors) {
                if coin.random_bool(share) {
                    piece.apply(&mut self.durable);
                }
            }
        }
        self.current = self.durable.clone();
    }

    pub(super) fn rot(&mut self, byte: usize) -> io::Result<()> {
        for bytes in [&mut self.current, &mut self.durable] {
            *bytes.get_mut(byte).ok_or(io::ErrorKind::UnexpectedEof)? ^= 1;
        }
        Ok(())
    }
}
