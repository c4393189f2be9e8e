//! Records that wait until the agent has them: a ring of bytes, in which the newest overwrites the oldest.

/// Memory for records of any length, in the order of their numbers.
#[derive(Debug)]
pub struct Store<'a> {
    ring: &'a mut [u8],
    /// Where the oldest record begins.
    start: usize,
    used: usize,
    /// Number of the oldest record.
    oldest: u32,
    count: u32,
    overwritten: u32,
}

/// Length before each record.
const HEAD: usize = 2;

impl<'a> Store<'a> {
    /// An empty one in this memory.
    ///
    /// # Panics
    /// When the memory does not hold the head of a record.
    pub fn new(ring: &'a mut [u8]) -> Self {
        assert!(ring.len() >= HEAD, "a store of {} bytes", ring.len());
        Self { ring, start: 0, used: 0, oldest: 1, count: 0, overwritten: 0 }
    }

    /// Keeps a record behind all others; what it overwrites is counted. One larger than the whole is not kept.
    pub fn push(&mut self, record: &[u8]) {
        let needed = HEAD + record.len();
        while self.count > 0 && self.used + needed > self.ring.len() {
            self.drop_oldest();
            self.overwritten = self.overwritten.saturating_add(1);
        }
        if needed > self.ring.len() {
            // Its number is spent; a record without bytes stands in its place.
            self.overwritten = self.overwritten.saturating_add(1);
            return self.push(&[]);
        }
        let mut at = self.wrapped(self.start + self.used);
        for byte in (record.len() as u16).to_le_bytes().iter().chain(record) {
            self.ring[at] = *byte;
            at = self.wrapped(at + 1);
        }
        self.used += needed;
        self.count += 1;
    }

    /// Number of the oldest record kept, or of the next one when there is none.
    pub fn oldest(&self) -> u32 {
        self.oldest
    }

    /// Records overwritten before anybody had them.
    pub fn overwritten(&self) -> u32 {
        self.overwritten
    }

    /// How many records are kept.
    pub fn len(&self) -> u32 {
        self.count
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Records before `number` are not needed any more.
    pub fn release(&mut self, number: u32) {
        while self.count > 0 && self.oldest < number {
            self.drop_oldest();
        }
    }

    /// Copies a record to the beginning of `out`; its length. Records near the oldest are found fastest, and only those
    /// are ever sent.
    pub fn get(&self, number: u32, out: &mut [u8]) -> Option<usize> {
        let steps = number.checked_sub(self.oldest).filter(|steps| *steps < self.count)?;
        let mut at = self.start;
        for _ in 0..steps {
            at = self.wrapped(at + HEAD + self.length_at(at));
        }
        let length = self.length_at(at);
        let out = out.get_mut(..length)?;
        at = self.wrapped(at + HEAD);
        let first = length.min(self.ring.len() - at);
        out[..first].copy_from_slice(&self.ring[at..at + first]);
        out[first..].copy_from_slice(&self.ring[..length - first]);
        Some(length)
    }

    fn drop_oldest(&mut self) {
        let length = HEAD + self.length_at(self.start);
        self.start = self.wrapped(self.start + length);
        self.used -= length;
        self.count -= 1;
        self.oldest += 1;
    }

    fn length_at(&self, at: usize) -> usize {
        usize::from(u16::from_le_bytes([self.ring[at], self.ring[self.wrapped(at + 1)]]))
    }

    /// Places go round; none is ever two rounds on.
    fn wrapped(&self, at: usize) -> usize {
        if at >= self.ring.len() { at - self.ring.len() } else { at }
    }
}
