//! Which numbers of a stream were answered for: complete up to somewhere, and ranges beyond. Pure.

use std::collections::{BTreeMap, BTreeSet};

use tributary_wire::SequenceNumber;

/// A receipt names at most this many numbers beyond the complete part that nobody asked about.
const SCATTERED: usize = 256;

/// The numbers of one stream of one life of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Progress {
    through: u64,
    /// First → last of ranges beyond `through`, neither touching it nor each other.
    beyond: BTreeMap<u64, u64>,
}

impl Progress {
    pub(super) fn new(through: SequenceNumber, ranges: Vec<(u64, u64)>) -> Self {
        let mut progress = Self { through: through.0, beyond: BTreeMap::new() };
        ranges.into_iter().for_each(|(first, last)| progress.add(first, last));
        progress
    }

    pub(super) fn through(&self) -> SequenceNumber {
        SequenceNumber(self.through)
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        number <= self.through || self.beyond.range(..=number).next_back().is_some_and(|(_, last)| *last >= number)
    }

    /// Whether any number of a range was answered for.
    pub(super) fn overlaps(&self, first: u64, last: u64) -> bool {
        first <= self.through || self.beyond.range(..=last).next_back().is_some_and(|(_, end)| *end >= first)
    }

    /// The ranges below a number that were not answered for, lowest first, and at most so many.
    pub(super) fn missing(&self, below: u64, most: usize) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        let mut next = self.through.saturating_add(1);
        for (first, last) in self.beyond.iter().map(|(first, last)| (*first, *last)).chain([(below, below)]) {
            let end = first.min(below).saturating_sub(1);
            if next <= end && missing.len() < most {
                missing.push((next, end));
            }
            next = next.max(last.saturating_add(1));
        }
        missing
    }

    pub(super) fn add(&mut self, first: u64, last: u64) {
        let (mut first, mut last) = (first.max(1), last);
        if last < first || last <= self.through {
            return;
        }
        // Swallow every range that overlaps or touches, then either reach on from `through` or stand alone.
        while let Some((&start, &end)) = self.beyond.range(..=last.saturating_add(1)).next_back() {
            if end < first.saturating_sub(1) {
                break;
            }
            self.beyond.remove(&start);
            (first, last) = (first.min(start), last.max(end));
        }
        if first <= self.through.saturating_add(1) {
            self.through = last;
        } else {
            self.beyond.insert(first, last);
        }
    }

    /// What a receipt names beyond the complete part: of the numbers that it answers all, so that a hole that nobody
    /// fills never keeps a device from hearing of what came after it; and the lowest others, in case an earlier receipt
    /// was lost.
    pub(super) fn scattered(&self, answered: &[SequenceNumber]) -> Vec<SequenceNumber> {
        let answered = answered.iter().filter(|number| number.0 > self.through && self.contains(number.0)).copied();
        let mut named: BTreeSet<SequenceNumber> = answered.collect();
        let others = self.beyond.iter().flat_map(|(first, last)| *first..=*last);
        named.extend(others.take(SCATTERED).map(SequenceNumber));
        named.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_order_of_numbers_ends_complete() {
        let mut state = 7_u64;
        for _ in 0..200 {
            let mut numbers: Vec<u64> = (1..=40).collect();
            let mut progress = Progress::default();
            let mut known = std::collections::BTreeSet::new();
            while !numbers.is_empty() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let number = numbers.swap_remove((state >> 33) as usize % numbers.len());
                let last = number + (state >> 20) % 3; // now and then a gap of up to three
                progress.add(number, last);
                known.extend(number..=last);
                let through = (1..).take_while(|n| known.contains(n)).last().unwrap_or(0);
                assert_eq!(progress.through().0, through);
                (1..=44).for_each(|n| assert_eq!(progress.contains(n), known.contains(&n), "{n} of {known:?}"));
                (1..=40).for_each(|n| assert_eq!(progress.overlaps(n, n + 4), (n..=n + 4).any(|n| known.contains(&n))));
                let beyond: Vec<u64> = progress.scattered(&[]).iter().map(|n| n.0).collect();
                assert_eq!(beyond, known.range(through + 1..).copied().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn what_is_missing_below_a_number_is_found() {
        let progress = Progress::new(SequenceNumber(3), vec![(6, 7), (10, 10)]);
        assert_eq!(progress.missing(20, 9), [(4, 5), (8, 9), (11, 19)]);
        assert_eq!(progress.missing(20, 1), [(4, 5)]);
        assert_eq!(progress.missing(9, 9), [(4, 5), (8, 8)]);
        assert_eq!(progress.missing(6, 9), [(4, 5)]);
        assert_eq!(progress.missing(4, 9), []);
        assert_eq!(progress.missing(0, 9), []);
    }

    #[test]
    fn a_receipt_names_what_it_answers_however_much_stands_beyond_a_hole() {
        let progress = Progress::new(SequenceNumber(3), vec![(5, 2_000), (2_002, 3_000)]);
        let named = progress.scattered(&[2, 4, 900, 2_001, 2_500].map(SequenceNumber));
        assert_eq!(named.len(), SCATTERED + 2);
        assert!(named.is_sorted() && [5, 900, 2_500].iter().all(|n| named.contains(&SequenceNumber(*n))));
        assert!([2, 4, 2_001].iter().all(|n| !named.contains(&SequenceNumber(*n))), "answered for, or never there");
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let mut progress = Progress::default();
        progress.add(5, u64::MAX);
        assert_eq!((progress.through().0, progress.contains(u64::MAX)), (0, true));
        progress.add(1, 4);
        assert_eq!(progress.through().0, u64::MAX);
    }
}
