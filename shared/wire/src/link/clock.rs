//! The node's clock in terms of the agent's.

use crate::Micros;

/// Exchanges that are looked at.
const EXCHANGES: usize = 8;
/// Two crystals of 100 ppm drift apart by so many microseconds within the exchanges looked at, at one in five seconds,
/// and a scheduler adds to it.
const SLACK: i64 = 20_000;

#[derive(Debug, Clone, Copy)]
struct Exchange {
    /// Agent's wall clock less node's uptime, in microseconds, between question and answer.
    offset: i64,
    /// Half of the time between question and answer: the offset is not further off than this.
    error: i64,
}

/// The distance between a node's uptime and the agent's wall clock, from questions and answers
/// (as in RFC 5905, §8, with one time stamp at the node: its answer leaves within microseconds).
///
/// Records are told in uptime. The agent translates, so a record that waited in the node through hours without an agent
/// needs no clock there.
#[derive(Debug, Clone, Default)]
pub struct ClockOffset {
    exchanges: [Option<Exchange>; EXCHANGES],
    next: usize,
}

impl ClockOffset {
    /// An answer came: `asked` and `now` are the agent's wall clock at question and answer, `uptime` is the node's.
    pub fn answered(&mut self, asked: Micros, uptime: u64, now: Micros) {
        let (Some(between), Ok(uptime)) = (now.0.checked_sub(asked.0), i64::try_from(uptime)) else { return };
        // A clock that went back in between tells nothing, nor does an answer to something never asked.
        if !(0..=60 * Micros::SECOND).contains(&between) {
            return;
        }
        let Some(offset) = (asked.0 + between / 2).checked_sub(uptime) else { return };
        let exchange = Exchange { offset, error: between / 2 };
        let stepped = |best: Exchange| (best.offset - offset).abs() > best.error + exchange.error + SLACK;
        if self.best().is_some_and(stepped) {
            *self = Self::default();
        }
        self.exchanges[self.next] = Some(exchange);
        self.next = (self.next + 1) % EXCHANGES;
    }

    /// The wall clock at an uptime; `None` before the first answer.
    pub fn wall(&self, uptime: u64) -> Option<Micros> {
        let best = self.best()?;
        Some(Micros(best.offset.saturating_add(i64::try_from(uptime).ok()?)))
    }

    /// How far off it may be, in microseconds.
    pub fn error(&self) -> Option<u64> {
        Some(self.best()?.error.unsigned_abs())
    }

    /// Questions that took long were delayed to one side or the other; the shortest says most.
    fn best(&self) -> Option<Exchange> {
        self.exchanges.iter().flatten().min_by_key(|exchange| exchange.error).copied()
    }
}
