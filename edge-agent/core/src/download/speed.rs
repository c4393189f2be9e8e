//! Whether a source is so slow that it might as well be silent.

use std::time::Duration;

/// Counts what comes over stretches of waiting. Time that the device itself lets pass, for its budget or its disk, does
/// not count.
#[derive(Debug, Clone)]
pub struct Speed {
    per_second: u64,
    over: Duration,
    waited: Duration,
    bytes: u64,
}

impl Speed {
    /// At least so many bytes a second, averaged over each stretch of this length; 0 bytes: any speed is good.
    pub fn new(per_second: u64, over: Duration) -> Self {
        Self { per_second, over, waited: Duration::ZERO, bytes: 0 }
    }

    /// After waiting for so long so many bytes came. `Err`: too slow, with the bytes per second that were seen.
    pub fn received(&mut self, waited: Duration, bytes: u64) -> Result<(), u64> {
        self.waited += waited;
        self.bytes += bytes;
        if self.waited < self.over {
            return Ok(());
        }
        let seen = (self.bytes as f64 / self.waited.as_secs_f64().max(f64::MIN_POSITIVE)) as u64;
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        if seen < self.per_second { Err(seen) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_is_found_out_after_one_stretch_and_a_slow_link_is_not() {
        let second = Duration::from_secs(1);
        let mut speed = Speed::new(1000, second * 10);
        assert!((0..9).all(|_| speed.received(second, 1).is_ok()));
        assert_eq!(speed.received(second, 1), Err(1));
        for _ in 0..100 {
            assert_eq!(speed.received(second, 1001), Ok(()));
        }
        assert_eq!(Speed::new(0, second).received(second * 9, 0), Ok(()));
        // A pause within a stretch that is fast on the whole.
        let mut speed = Speed::new(1000, second * 10);
        assert_eq!(speed.received(Duration::ZERO, 1 << 20), Ok(()));
        assert_eq!(speed.received(second * 12, 1), Ok(()));
    }
}
