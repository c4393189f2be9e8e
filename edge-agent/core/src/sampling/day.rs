//! The bytes of a UTC day, spread over the day without looking ahead.
//!
//! What may still be spent is held against what is still to be expected: the rate at which bytes were wanted lately,
//! times what is left of the day. The quotient is the share that every observation gets. It follows from the past
//! alone, moves slowly, and comes close to nothing only when the bytes do. Once they are used up it is 0, and what comes
//! then is counted apart: no weight stands for it.

use serde::{Deserialize, Serialize};
use tributary_wire::Micros;

/// How long the rate remembers, in microseconds.
const MEMORY: f64 = Micros::HOUR as f64;
/// Before so many observations nothing is known of the rate: each may take a thirty-second part of what is left.
const FIRST: u32 = 32;

/// What was spent on a day, and how fast more is wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Day {
    /// Days since 1970-01-01.
    day: i64,
    spent: u64,
    rate: Rate,
}

impl Default for Day {
    fn default() -> Self {
        Self { day: i64::MIN, spent: 0, rate: Rate::default() }
    }
}

/// Bytes wanted per microsecond, later ones counting more.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Rate {
    wanted: f64,
    since: i64,
    at: i64,
    seen: u32,
}

impl Rate {
    fn count(&mut self, at: i64, wanted: f64) {
        if self.seen == 0 {
            (self.since, self.at) = (at, at);
        }
        let passed = (at - self.at).max(0) as f64;
        self.wanted = self.wanted * (-passed / MEMORY).exp() + wanted;
        self.at = self.at.max(at);
        self.seen = self.seen.saturating_add(1);
    }

    fn per_micro(&self) -> f64 {
        let over = MEMORY * (1.0 - (-((self.at - self.since) as f64) / MEMORY).exp());
        self.wanted / over.max(Micros::SECOND as f64)
    }
}

impl Day {
    /// The share of what is wanted, from 0 to 1, that an observation of `bytes` gets. `wanted` is its share without
    /// any budget.
    pub(super) fn share(&mut self, now: Micros, bytes: u64, wanted: f64, budget: Option<u64>) -> f64 {
        let now = self.turn(now);
        let wanted = wanted * bytes.max(1) as f64;
        self.rate.count(now, wanted);
        let Some(budget) = budget else { return 1.0 };
        let left = budget.saturating_sub(self.spent) as f64;
        if wanted <= 0.0 || left <= 0.0 {
            return 0.0;
        }
        let fits = if self.rate.seen <= FIRST {
            left / (f64::from(FIRST) * wanted)
        } else {
            let rest = ((self.day + 1) * Micros::DAY - now).clamp(Micros::SECOND, Micros::DAY);
            left / (self.rate.per_micro() * rest as f64)
        };
        // Whatever the rate says, no observation is expected to take more than is left.
        fits.min(left / wanted).min(1.0)
    }

    pub(super) fn spend(&mut self, bytes: u64) {
        self.spent = self.spent.saturating_add(bytes);
    }

    /// Bytes of the day of `now`.
    pub(super) fn spent(&self, now: Micros) -> u64 {
        if now.day() > self.day { 0 } else { self.spent }
    }

    /// Begins another day, and gives a time that lies in the day that counts. A clock that is set back never gives
    /// bytes again: a little back, and the day stays; far back, and the new day begins with what was spent.
    fn turn(&mut self, now: Micros) -> i64 {
        let day = now.day();
        if day > self.day {
            (self.day, self.spent) = (day, 0);
        } else if day < self.day - 1 {
            (self.day, self.rate) = (day, Rate::default());
        }
        now.0.max(self.day * Micros::DAY)
    }
}
