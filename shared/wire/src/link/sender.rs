//! What a node sends, and sends again.

use super::WINDOW;

/// Waits of a [`Sender`], in its clock's microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Until a record without acknowledgement is sent again; doubled with every try …
    pub resend: u64,
    /// … up to this.
    pub slowest: u64,
    /// While the line is seen to lose and nothing else is due, a record goes once more after this.
    pub idle: u64,
}

impl Default for Timing {
    /// A window of sixteen feature frames takes 90 ms at 115 200 baud, and the agent syncs a disk before it answers. A
    /// line that loses must not idle while something waits: four such frames take 20 ms.
    fn default() -> Self {
        Self { resend: 250_000, slowest: 500_000, idle: 20_000 }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Flight {
    /// Sent so many times; 0: waiting for its first.
    tries: u8,
    stored: bool,
    /// Place among all that was ever sent: a line does not reorder, so what was sent before a stored record is lost.
    order: u32,
    /// When it was last sent.
    sent: u64,
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
    /// Until then the line is one that loses: an answer showed a gap.
    lossy: u64,
    /// What the fastest of the last answers took. Only records sent once are timed: the answer to one sent twice may be
    /// to either (P. Karn).
    fastest: u64,
    /// Of `oldest` and those behind it, by number modulo the window.
    flights: [Flight; WINDOW as usize],
}

impl Sender {
    /// At the beginning of a session: the first record is number 1.
    pub fn new(timing: Timing) -> Self {
        let fastest = timing.resend;
        Self { timing, oldest: 1, next: 1, sent: 0, lossy: 0, fastest, flights: [Flight::default(); WINDOW as usize] }
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
    pub fn stored(&mut self, now: u64, through: u32, scattered: u32) {
        if through >= self.next {
            return;
        }
        let (mut newest, mut missing, mut gap) = (None, false, false);
        for number in self.oldest..self.end() {
            let bit = number.checked_sub(through.saturating_add(2));
            let scattered = bit.is_some_and(|bit| bit < 32 && scattered >> bit & 1 == 1);
            let flight = &mut self.flights[slot(number)];
            if (number <= through || scattered) && !core::mem::replace(&mut flight.stored, true) && flight.tries > 0 {
                newest = newest.max(Some(flight.order));
                if flight.tries == 1 {
                    // Slower ones count a little: what is fast changes with the agent's load.
                    self.fastest = now.saturating_sub(flight.sent).min(self.fastest + self.fastest / 8);
                }
            }
            gap |= flight.stored && missing;
            missing |= !flight.stored;
        }
        if gap {
            self.lossy = now.saturating_add(self.timing.slowest);
        }
        for number in self.oldest..self.end() {
            let flight = &mut self.flights[slot(number)];
            if flight.tries > 0 && !flight.stored && Some(flight.order) < newest {
                flight.due = 0;
            }
        }
        self.advance(self.oldest.max(through.saturating_add(1)));
        while self.oldest < self.next && self.flights[slot(self.oldest)].stored {
            self.advance(self.oldest + 1);
        }
    }

    /// The record to send now, when the line is free, noted as sent. Ask again until there is none.
    pub fn due(&mut self, now: u64) -> Option<u32> {
        let mut waiting = (self.oldest..self.end()).filter(|number| !self.flights[slot(*number)].stored);
        let due = |number: &u32| self.flights[slot(*number)].due <= now;
        let idle = |number: &u32| self.repeat(now, &self.flights[slot(*number)]) <= now;
        let number = waiting.clone().find(due).or_else(|| waiting.find(idle))?;
        let wait = self.wait(now, self.flights[slot(number)].tries);
        let flight = &mut self.flights[slot(number)];
        (flight.sent, flight.due, flight.order) = (now, now.saturating_add(wait), self.sent);
        flight.tries = flight.tries.saturating_add(1);
        self.sent = self.sent.wrapping_add(1);
        Some(number)
    }

    /// An agent that is slow to answer is asked ever more seldom; of one that lost something nothing more is awaited than
    /// the time that an answer takes.
    fn wait(&self, now: u64, tries: u8) -> u64 {
        let Timing { resend, slowest, idle } = self.timing;
        let wait = match now < self.lossy {
            true => self.fastest.saturating_add(idle / 2),
            false => resend.saturating_mul(1 << tries.min(20)),
        };
        wait.min(slowest)
    }

    /// When a record may go once more if nothing else is due: a line that loses is ours alone and need not idle.
    fn repeat(&self, now: u64, flight: &Flight) -> u64 {
        let repeat = flight.sent.saturating_add(self.timing.idle);
        if now.max(repeat) < self.lossy { repeat } else { flight.due }
    }

    /// When [`Self::due`] has something again, unless something is stored or added before.
    pub fn next_wake(&self, now: u64) -> Option<u64> {
        let waiting = (self.oldest..self.end()).map(|number| &self.flights[slot(number)]);
        waiting.filter(|flight| !flight.stored).map(|flight| flight.due.min(self.repeat(now, flight))).min()
    }

    /// The agent is new or was away: everything that is not stored is sent as if for the first time.
    pub fn begin_again(&mut self) {
        for number in self.oldest..self.end() {
            let flight = &mut self.flights[slot(number)];
            (flight.tries, flight.due) = (0, 0);
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
