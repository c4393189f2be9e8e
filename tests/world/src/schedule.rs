//! What happens when: the heart of the world.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Happenings in the order of their times; those of one moment in the order in which they were planned.
#[derive(Debug)]
pub struct Schedule<E> {
    waiting: BinaryHeap<Reverse<Planned<E>>>,
    planned: u64,
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
        Self { waiting: BinaryHeap::new(), planned: 0 }
    }
}

impl<E> Schedule<E> {
    /// Something will happen.
    pub fn plan(&mut self, at: Duration, what: E) {
        self.waiting.push(Reverse(Planned { at, number: self.planned, what }));
        self.planned += 1;
    }

    /// What happens next, and when.
    pub fn pop(&mut self) -> Option<(Duration, E)> {
        self.waiting.pop().map(|Reverse(planned)| (planned.at, planned.what))
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
        let order: String = std::iter::from_fn(|| schedule.pop()).map(|(_, what)| what).collect();
        assert_eq!(order, "abcd");
    }
}
