//! Orders to a node: sent until their outcome is known, one at a time, because a node carries out only what is newer
//! than its last.

use std::collections::VecDeque;
use std::time::Duration;

use tributary_wire::link::Order;

/// An order without its outcome is sent again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// Orders that may wait; the oldest is forgotten first.
const MOST: usize = 16;

/// Orders that are not done yet.
#[derive(Debug)]
pub struct Orders {
    next: u32,
    waiting: VecDeque<(u32, Order)>,
    due: Duration,
}

impl Orders {
    /// None; the first gets the number `from`.
    pub fn new(from: u32) -> Self {
        Self { next: from.max(1), waiting: VecDeque::new(), due: Duration::ZERO }
    }

    /// A session began: what was under way is sent in it.
    pub fn begin(&mut self) {
        self.due = Duration::ZERO;
    }

    /// Puts one behind the others; its number.
    pub fn add(&mut self, order: Order) -> u32 {
        let number = self.next;
        self.next = self.next.saturating_add(1);
        if self.waiting.len() == MOST {
            self.waiting.pop_front();
        }
        self.waiting.push_back((number, order));
        if self.waiting.len() == 1 {
            self.due = Duration::ZERO;
        }
        number
    }

    /// The outcome of one is known; whether it was asked for.
    pub fn done(&mut self, number: u32) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|(waiting, _)| *waiting > number);
        self.due = Duration::ZERO;
        self.waiting.len() < before
    }

    /// What to send now.
    pub fn due(&mut self, now: Duration) -> Option<(u32, Order)> {
        let first = *self.waiting.front().filter(|_| now >= self.due)?;
        self.due = now + AGAIN;
        Some(first)
    }

    /// When there is something to send again.
    pub fn next_wake(&self) -> Option<Duration> {
        self.waiting.front().map(|_| self.due)
    }
}
