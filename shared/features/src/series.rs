//! The events of one entity in time order, with running sums: what every window of that entity is a difference of.
//!
//! ```text
//! words: │ FIRST END QUERY FLOOR MASK │ cursor per offset │ totals │ ring of entries
//! entry: │ time │ sum of each column before this entry (128 bits) │ labels before it │
//! ```
//!
//! One allocation holds all of it, so an event touches one stretch of memory per boundary. Positions count from the
//! entity's first event on and never wrap; an entry lies at its position modulo the ring's length, a power of two.
//! A window's count is a difference of positions, its sum a difference of the sums standing there.

use crate::plan::Plan;

/// Position of the oldest entry held.
const FIRST: usize = 0;
/// Position after the newest.
const END: usize = 1;
/// Time of the latest query: cursors are right for it, and only move forward.
const QUERY: usize = 2;
/// Newest time among entries given up because there were too many.
const FLOOR: usize = 3;
/// Length of the ring less one.
const MASK: usize = 4;
const CURSORS: usize = 5;

/// Half of all entities of a fleet have a handful of events.
const FIRST_CAPACITY: usize = 4;

/// Where things lie in the words of every series of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    offsets: usize,
    columns: usize,
    labels: bool,
    /// Position of the totals.
    totals: usize,
    /// Length of the head.
    head: usize,
    /// Words of an entry.
    stride: usize,
}

impl Shape {
    pub(crate) fn of(plan: &Plan) -> Self {
        let (offsets, columns, labels) = (plan.offsets.len(), plan.columns.len(), plan.labels);
        let sums = 2 * columns + usize::from(labels);
        let totals = CURSORS + offsets;
        Self { offsets, columns, labels, totals, head: totals + sums, stride: 1 + sums }
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    words: Vec<i64>,
}

impl Series {
    pub(crate) fn new(shape: Shape) -> Self {
        let mut words = vec![0; shape.head + FIRST_CAPACITY * shape.stride];
        words[QUERY] = i64::MIN;
        words[FLOOR] = i64::MIN;
        words[MASK] = FIRST_CAPACITY as i64 - 1;
        Self { words }
    }

    pub(crate) fn first(&self) -> i64 {
        self.words[FIRST]
    }

    pub(crate) fn end(&self) -> i64 {
        self.words[END]
    }

    pub(crate) fn floor(&self) -> i64 {
        self.words[FLOOR]
    }

    pub(crate) fn set_floor(&mut self, floor: i64) {
        self.words[FLOOR] = floor;
    }

    pub(crate) fn latest_query(&self) -> i64 {
        self.words[QUERY]
    }

    pub(crate) fn len(&self) -> usize {
        (self.end() - self.first()) as usize
    }

    /// Time of the newest entry.
    pub(crate) fn newest(&self, shape: Shape) -> Option<i64> {
        (self.len() > 0).then(|| self.time(shape, self.end() - 1))
    }

    #[inline]
    fn place(&self, shape: Shape, position: i64) -> usize {
        shape.head + (position & self.words[MASK]) as usize * shape.stride
    }

    #[inline]
    pub(crate) fn time(&self, shape: Shape, position: i64) -> i64 {
        self.words[self.place(shape, position)]
    }

    /// Where the sums before `position` stand: in its entry, or in the totals at the end.
    #[inline]
    fn sums(&self, shape: Shape, position: i64) -> usize {
        if position == self.end() { shape.totals } else { self.place(shape, position) + 1 }
    }

    #[inline]
    fn sum_before(&self, shape: Shape, position: i64, column: usize) -> i128 {
        let at = self.sums(shape, position) + 2 * column;
        wide(self.words[at], self.words[at + 1])
    }

    /// Sum of a column over the entries from `from` up to, not including, `to`.
    #[inline]
    pub(crate) fn sum(&self, shape: Shape, column: usize, from: i64, to: i64) -> i128 {
        self.sum_before(shape, to, column).wrapping_sub(self.sum_before(shape, from, column))
    }

    /// How many of those entries have a true label.
    #[inline]
    pub(crate) fn labels(&self, shape: Shape, from: i64, to: i64) -> u64 {
        let at = 2 * shape.columns;
        (self.words[self.sums(shape, to) + at] - self.words[self.sums(shape, from) + at]) as u64
    }

    /// Takes an entry in where its time belongs, after those of equal time. Entries up to and including `forget` may be
    /// given up when room is needed; at most `max` are kept.
    #[inline]
    pub(crate) fn insert(
        &mut self,
        shape: Shape,
        time: i64,
        column: impl Fn(usize) -> i64,
        label: bool,
        forget: i64,
        max: usize,
    ) {
        if self.len() > self.words[MASK] as usize || self.len() >= max {
            self.make_room(shape, forget, max);
        }
        let end = self.end();
        let is_late = end > self.first() && time < self.time(shape, end - 1);
        let position = if is_late { self.open_gap(shape, time) } else { end };
        let at = self.place(shape, position);
        self.words[at] = time;
        let sums = if is_late { self.sums_before_gap(shape, position) } else { shape.totals };
        for word in 0..shape.stride - 1 {
            self.words[at + 1 + word] = self.words[sums + word];
        }
        self.words[END] = end + 1;
        // The entry adds to the sums of all that stand after it.
        let mut after = position + 1;
        loop {
            let sums = self.sums(shape, after);
            for number in 0..shape.columns {
                self.add(sums + 2 * number, column(number));
            }
            if shape.labels {
                self.words[sums + 2 * shape.columns] += i64::from(label);
            }
            if after == end + 1 {
                break;
            }
            after += 1;
        }
    }

    /// Changes how much the label of an entry with this time counts. Which one of several with equal time does not
    /// matter: no boundary lies between them.
    pub(crate) fn change_label(&mut self, shape: Shape, time: i64, difference: i64) {
        debug_assert!(shape.labels, "only plans with labels are told about them");
        for position in self.position(shape, time)..=self.end() {
            let at = self.sums(shape, position) + 2 * shape.columns;
            self.words[at] += difference;
        }
    }

    /// Position after the entries with time up to and including `bound`.
    pub(crate) fn position(&self, shape: Shape, bound: i64) -> i64 {
        let (mut low, mut high) = (self.first(), self.end());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.time(shape, middle) <= bound { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Moves the cursors to `t`, which is not before the latest query, and gives their positions.
    #[inline]
    pub(crate) fn advance(&mut self, shape: Shape, offsets: &[i64], t: i64) -> &[i64] {
        let (first, end) = (self.first(), self.end());
        for (number, offset) in offsets.iter().enumerate() {
            let bound = t - offset;
            let mut cursor = self.words[CURSORS + number].max(first);
            while cursor < end && self.time(shape, cursor) <= bound {
                cursor += 1;
            }
            self.words[CURSORS + number] = cursor;
        }
        self.words[QUERY] = t;
        self.cursors(shape)
    }

    #[inline]
    pub(crate) fn cursors(&self, shape: Shape) -> &[i64] {
        &self.words[CURSORS..CURSORS + shape.offsets]
    }

    /// Gives up entries with time up to and including `forget`.
    pub(crate) fn forget(&mut self, shape: Shape, forget: i64) {
        while self.first() < self.end() && self.time(shape, self.first()) <= forget {
            self.words[FIRST] += 1;
        }
    }

    #[cold]
    fn make_room(&mut self, shape: Shape, forget: i64, max: usize) {
        self.forget(shape, forget);
        while self.len() >= max {
            self.words[FLOOR] = self.words[FLOOR].max(self.time(shape, self.first()));
            self.words[FIRST] += 1;
        }
        let capacity = self.words[MASK] as usize + 1;
        if self.len() < capacity {
            return;
        }
        let mut words = vec![0; shape.head + 2 * capacity * shape.stride];
        words[..shape.head].copy_from_slice(&self.words[..shape.head]);
        words[MASK] = 2 * capacity as i64 - 1;
        let mut grown = Self { words };
        for position in self.first()..self.end() {
            let (from, to) = (self.place(shape, position), grown.place(shape, position));
            grown.words[to..to + shape.stride].copy_from_slice(&self.words[from..from + shape.stride]);
        }
        *self = grown;
    }

    /// Moves the entries later than `time` up by one and gives the position that became free. There is room.
    #[cold]
    fn open_gap(&mut self, shape: Shape, time: i64) -> i64 {
        let position = self.position(shape, time);
        for moved in (position..self.end()).rev() {
            let (from, to) = (self.place(shape, moved), self.place(shape, moved + 1));
            self.words.copy_within(from..from + shape.stride, to);
        }
        for cursor in CURSORS..CURSORS + shape.offsets {
            // A cursor that stands at the gap stays: it moves over the new entry by itself if that is in its bound.
            if self.words[cursor] > position {
                self.words[cursor] += 1;
            }
        }
        position
    }

    /// Where the sums before a gap stand: those of the entry that was moved up from it. A gap is never at the end.
    fn sums_before_gap(&self, shape: Shape, gap: i64) -> usize {
        self.place(shape, gap + 1) + 1
    }

    #[inline]
    fn add(&mut self, at: usize, value: i64) {
        let sum = wide(self.words[at], self.words[at + 1]).wrapping_add(i128::from(value));
        self.words[at] = sum as i64;
        self.words[at + 1] = (sum >> 64) as i64;
    }
}

#[inline]
fn wide(low: i64, high: i64) -> i128 {
    (i128::from(high) << 64) | i128::from(low as u64)
}
