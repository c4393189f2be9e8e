//! What happened, as lines to read and as one number to compare.

use std::fmt;
use std::hash::Hasher;
use std::time::Duration;

/// A running record of a run. Two runs of one seed leave the same number.
#[derive(Debug, Default)]
pub struct Trace {
    // SipHash with fixed keys: the same on every machine.
    hash: std::hash::DefaultHasher,
    shown: bool,
}

impl Trace {
    /// With `shown`, every line is printed too.
    pub fn new(shown: bool) -> Self {
        Self { shown, ..Self::default() }
    }

    /// Something happened.
    pub fn note(&mut self, now: Duration, what: fmt::Arguments<'_>) {
        let line = what.to_string();
        self.hash.write_u128(now.as_micros());
        self.hash.write(line.as_bytes());
        if self.shown {
            println!("{:>14.6} {line}", now.as_secs_f64());
        }
    }

    /// The number.
    pub fn hash(&self) -> u64 {
        self.hash.finish()
    }
}
