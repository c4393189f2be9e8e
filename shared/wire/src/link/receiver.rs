//! What an agent takes, and what it acknowledges.

use super::WINDOW;

/// What a record with a number is to the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reception {
    /// Store it.
    New,
    /// It is stored, or being stored: only acknowledge.
    Again,
    /// Further ahead than a sender may be: not from this session.
    Beyond,
}

/// Which numbered records of one session are stored. Nothing is acknowledged before.
#[derive(Debug, Clone, Default)]
pub struct Receiver {
    /// All up to this number are stored, or will never come.
    through: u32,
    /// Bit n: `through + 1 + n` is here.
    taken: u64,
    /// Bit n: it is stored.
    stored: u64,
    lost: u32,
}

impl Receiver {
    /// Goes on within a session whose beginning was not seen: `first` is the first number that came.
    pub fn resume(first: u32, behind: u32) -> Self {
        Self { through: first.saturating_sub(behind).saturating_sub(1), ..Self::default() }
    }

    /// Takes note of a record; `behind` it lies the oldest that may still come.
    pub fn take(&mut self, number: u32, behind: u32) -> Reception {
        // The sender's window begins at the oldest record that it was not told of, so this is the furthest.
        if behind >= WINDOW || number == 0 || number == u32::MAX {
            return Reception::Beyond;
        }
        let oldest = number.saturating_sub(behind);
        while self.through + 1 < oldest && self.taken != 0 {
            self.lost = self.lost.saturating_add(u32::from(self.taken & 1 == 0));
            self.shift();
        }
        // A long absence: nothing of what lies between was ever here.
        if let Some(skipped) = oldest.checked_sub(self.through + 1) {
            self.lost = self.lost.saturating_add(skipped);
            self.through += skipped;
        }
        let Some(bit) = number.checked_sub(self.through + 1) else { return Reception::Again };
        if bit >= u64::BITS {
            return Reception::Beyond;
        }
        if self.taken >> bit & 1 == 1 {
            return Reception::Again;
        }
        self.taken |= 1 << bit;
        Reception::New
    }

    /// The record is durable.
    pub fn store(&mut self, number: u32) {
        let Some(bit) = number.checked_sub(self.through + 1).filter(|bit| *bit < u64::BITS) else { return };
        self.stored |= (1 << bit) & self.taken;
        while self.stored & 1 == 1 {
            self.shift();
        }
    }

    /// The record could not be stored: when it comes again it is new.
    pub fn give_back(&mut self, number: u32) {
        if let Some(bit) = number.checked_sub(self.through + 1).filter(|bit| *bit < u64::BITS) {
            self.taken &= !(1 << bit) | self.stored;
        }
    }

    /// What to acknowledge: all through a number, and bit n for `through + 2 + n`.
    pub fn acknowledged(&self) -> (u32, u32) {
        (self.through, (self.stored >> 1) as u32)
    }

    /// Records that will never come: the sender overwrote them.
    pub fn lost(&self) -> u32 {
        self.lost
    }

    fn shift(&mut self) {
        self.through += 1;
        (self.taken, self.stored) = (self.taken >> 1, self.stored >> 1);
    }
}
