//! What a node sends, and sends again.

use super::WINDOW;

/// Waits of a [`Sender`], in its clock's microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Until a record without acknowledgement is sent again; doubled with every try …
    pub resend: u64,
    /// … up to this.
    pub slowest: u64,
}

impl Default for Timing {
    /// A window of sixteen feature frames takes 90 ms at 115 200 baud, and the agent syncs a disk before it answers.
    fn default() -> Self {
        Self { resend: 250_000, slowest: 500_000 }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Flight {
    /// Sent so many times; 0: waiting for its first.
    tries: u8,
    stored: bool,
    /// Place among all that was ever sent: a line does not reorder, so what was sent before a stored record is lost.
    order: u32,
    /// When to send again.
    due: u64,
}

/// Which numbered records the agent has, and which to send next. The records themselves are kept elsewhere.
#[derive(Debug, Clone)]
pub struct Sender {
    timing: Timing,
    /// The oldest number not known to be stored.
    oldest: u32,
    /// The number that the next record gets.
    next: u32,
    sent: u32,
    /// Of `oldest` and those behind it, by number modulo the window.
    flights: [Flight; WINDOW as usize],
}

impl Sender {
    /// At the beginning of a session: the first record is number 1.
    pub fn new(timing: Timing) -> Self {
        Self { timing, oldest: 1, next: 1, sent: 0, flights: [Flight::default(); WINDOW as usize] }
    }

    /// The number of a record that is being put into store.
    pub fn number(&mut self) -> u32 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// The oldest record that may still have to be sent; all before it need not be kept.
    pub fn oldest(&self) -> u32 {
        self.oldest
    }

    /// The number that the next record will get.
    pub fn next(&self) -> u32 {
        self.next
    }

    /// Records up to and including `number` were overwritten.
    pub fn forget(&mut self, number: u32) {
        self.advance(number.saturating_add(1).min(self.next));
    }

    /// The agent has stored all through `through`, and `through + 2 + n` for each bit n of `scattered`. What no sender
    /// can mean, numbers never given, changes nothing.
    pub fn stored(&mut self, through: u32, scattered: u32) {
        if through >= self.next {
            return;
        }
        let mut newest = None;
        for number in self.oldest..self.end() {
            let bit = number.checked_sub(through.saturating_add(2));
            let scattered = bit.is_some_and(|bit| bit < 32 && scattered >> bit & 1 == 1);
            let flight = &mut self.flights[slot(number)];
            if (number <= through || scattered) && !core::mem::replace(&mut flight.stored, true) && flight.tries > 0 {
                newest = newest.max(Some(flight.order));
            }
        }
        if let Some(newest) = newest {
            for number in self.oldest..self.end() {
                let flight = &mut self.flights[slot(number)];
                if flight.tries > 0 && !flight.stored && flight.order < newest {
                    flight.due = 0;
                }
            }
        }
        self.advance(self.oldest.max(through.saturating_add(1)));
        while self.oldest < self.next && self.flights[slot(self.oldest)].stored {
            self.advance(self.oldest + 1);
        }
    }

    /// The record to send now, noted as sent. Ask again until there is none.
    pub fn due(&mut self, now: u64) -> Option<u32> {
        let number = (self.oldest..self.end()).find(|number| {
            let flight = &self.flights[slot(*number)];
            !flight.stored && (flight.tries == 0 || flight.due <= now)
        })?;
        let Timing { resend, slowest } = self.timing;
        let flight = &mut self.flights[slot(number)];
        let wait = resend.saturating_mul(1 << flight.tries.min(20)).min(slowest);
        (flight.due, flight.order) = (now.saturating_add(wait), self.sent);
        flight.tries = flight.tries.saturating_add(1);
        self.sent = self.sent.wrapping_add(1);
        Some(number)
    }

    /// When [`Self::due`] has something again, unless something is stored or added before.
    pub fn next_wake(&self) -> Option<u64> {
        let waiting = (self.oldest..self.end()).map(|number| &self.flights[slot(number)]);
        waiting.filter(|flight| !flight.stored).map(|flight| if flight.tries == 0 { 0 } else { flight.due }).min()
    }

    /// The agent is new or was away: everything that is not stored is sent as if for the first time.
    pub fn begin_again(&mut self) {
        for number in self.oldest..self.end() {
            let flight = &mut self.flights[slot(number)];
            flight.tries = 0;
        }
    }

    /// One past the newest record that may be sent.
    fn end(&self) -> u32 {
        self.next.min(self.oldest.saturating_add(WINDOW))
    }

    fn advance(&mut self, oldest: u32) {
        let gone = oldest.saturating_sub(self.oldest).min(WINDOW);
        for number in self.oldest..self.oldest.saturating_add(gone) {
            self.flights[slot(number)] = Flight::default();
        }
        self.oldest = self.oldest.max(oldest);
    }
}

fn slot(number: u32) -> usize {
    (number % WINDOW) as usize
}
