//! What happens when: the heart of the world.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Most happenings of one minute of the world's time. The busiest minutes of hundreds of seeds had some hundred; a
/// machine that keeps itself busy with nothing would let a run go on for ever.
const MOST: u64 = 20_000;
const MINUTE: Duration = Duration::from_secs(60);

/// Why nothing more happens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stuck {
    /// Nothing is planned.
    #[error("nothing is left to happen")]
    Nothing,
    /// Machines keep each other busy.
    #[error("more than {MOST} things happen in the minute before {at:?}: somebody is busy with nothing")]
    Busy {
        /// When.
        at: Duration,
    },
}

/// Happenings in the order of their times; those of one moment in the order in which they were planned.
#[derive(Debug)]
pub struct Schedule<E> {
    waiting: BinaryHeap<Reverse<Planned<E>>>,
    planned: u64,
    /// The minute of the newest happening, and how many there were in it.
    minute: (u128, u64),
    busiest: u64,
}

#[derive(Debug)]
struct Planned<E> {
    at: Duration,
    number: u64,
    what: E,
}

impl<E> PartialEq for Planned<E> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl<E> Eq for Planned<E> {}

impl<E> PartialOrd for Planned<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Planned<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<E> Default for Schedule<E> {
    fn default() -> Self {
        Self { waiting: BinaryHeap::new(), planned: 0, minute: (0, 0), busiest: 0 }
    }
}

impl<E> Schedule<E> {
    /// Something will happen.
    pub fn plan(&mut self, at: Duration, what: E) {
        self.waiting.push(Reverse(Planned { at, number: self.planned, what }));
        self.planned += 1;
    }

    /// Happenings of the busiest minute.
    pub fn busiest(&self) -> u64 {
        self.busiest
    }

    /// What happens next, and when.
    pub fn pop(&mut self) -> Result<(Duration, E), Stuck> {
        let Reverse(Planned { at, what, .. }) = self.waiting.pop().ok_or(Stuck::Nothing)?;
        let minute = at.as_nanos() / MINUTE.as_nanos();
        let before = if self.minute.0 == minute { self.minute.1 } else { 0 };
        self.minute = (minute, before + 1);
        self.busiest = self.busiest.max(self.minute.1);
        if before >= MOST { Err(Stuck::Busy { at }) } else { Ok((at, what)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn happenings_come_by_time_and_those_of_one_moment_as_they_were_planned() {
        let mut schedule = Schedule::default();
        for (at, what) in [(5, 'd'), (1, 'a'), (3, 'b'), (3, 'c')] {
            schedule.plan(Duration::from_secs(at), what);
        }
        let order: String = std::iter::from_fn(|| schedule.pop().ok()).map(|(_, what)| what).collect();
        assert_eq!(order, "abcd");
        assert_eq!(schedule.pop(), Err(Stuck::Nothing));
    }

    #[test]
    fn a_world_that_keeps_itself_busy_with_nothing_ends() {
        for pause in [Duration::ZERO, Duration::from_millis(2)] {
            let mut schedule = Schedule::default();
            schedule.plan(Duration::from_secs(30), ());
            let stuck = (0..2 * MOST).find_map(|_| match schedule.pop() {
                Ok((at, ())) => {
                    schedule.plan(at + pause, ());
                    None
                }
                Err(stuck) => Some(stuck),
            });
            assert!(matches!(stuck, Some(Stuck::Busy { .. })), "{pause:?}: {stuck:?}");
        }
        let mut calm = Schedule::default();
        (0..2 * MOST).for_each(|number| calm.plan(Duration::from_millis(4 * number), ()));
        assert!((0..2 * MOST).all(|_| calm.pop().is_ok()));
    }
}
