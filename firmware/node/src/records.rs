//! Numbered records: made, kept, sent until the agent has them.

use tributary_wire::link::{MAX_RECORD, Record, Sender, Timing, pack};

use crate::store::Store;

/// Records and what is known of their way.
#[derive(Debug)]
pub(crate) struct Records<'a> {
    store: Store<'a>,
    sender: Sender,
}

/// A record to send.
pub(crate) struct Due {
    pub(crate) number: u32,
    /// How far behind it the oldest lies that may still come.
    pub(crate) behind: u32,
    /// Packed.
    pub(crate) bytes: [u8; MAX_RECORD],
    pub(crate) length: usize,
}

impl<'a> Records<'a> {
    pub(crate) fn new(ring: &'a mut [u8]) -> Self {
        Self { store: Store::new(ring), sender: Sender::new(Timing::default()) }
    }

    /// Numbers a record and puts it behind all others.
    pub(crate) fn keep(&mut self, uptime: u64, record: &Record<'_>) {
        let mut bytes = [0; MAX_RECORD];
        // All records are made in this crate, and the longest of them fits; if one did not, its number would go lost.
        let length = pack(uptime, record, &mut bytes).unwrap_or(0);
        self.sender.number();
        self.store.push(&bytes[..length]);
        self.sender.forget(self.store.oldest() - 1);
    }

    /// The agent has stored these.
    pub(crate) fn stored(&mut self, now: u64, through: u32, scattered: u32) {
        self.sender.stored(now, through, scattered);
        self.store.release(self.sender.oldest());
    }

    /// The agent is new or was away.
    pub(crate) fn begin_again(&mut self) {
        self.sender.begin_again();
    }

    /// The record to send now.
    pub(crate) fn due(&mut self, now: u64) -> Option<Due> {
        while let Some(number) = self.sender.due(now) {
            let mut due = Due { number, behind: number - self.sender.oldest(), bytes: [0; MAX_RECORD], length: 0 };
            match self.store.get(number, &mut due.bytes) {
                Some(length) if length > 0 => return Some(Due { length, ..due }),
                // Nothing stands under this number: the next record tells the agent that it will not come.
                _ if number == self.sender.oldest() => self.sender.forget(number),
                _ => {}
            }
        }
        None
    }

    /// Records overwritten before the agent had them.
    pub(crate) fn overwritten(&self) -> u32 {
        self.store.overwritten()
    }

    /// Records that the agent is not known to have.
    pub(crate) fn len(&self) -> u32 {
        self.store.len()
    }
}
