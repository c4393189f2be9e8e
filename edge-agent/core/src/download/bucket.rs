//! So many bytes a second, and no more.

use std::time::Duration;

/// A token bucket that holds one second's worth. Waiting loses nothing: who took more waits longer.
#[derive(Debug)]
pub struct Bucket {
    per_second: f64,
    tokens: f64,
    filled: Duration,
}

impl Bucket {
    /// A full one.
    pub fn new(per_second: u64, now: Duration) -> Self {
        let per_second = per_second.max(1) as f64;
        Self { per_second, tokens: per_second, filled: now }
    }

    /// So many bytes have come; how long to wait before more are read.
    pub fn take(&mut self, bytes: u64, now: Duration) -> Duration {
        let since = now.saturating_sub(self.filled).as_secs_f64();
        self.filled = self.filled.max(now);
        self.tokens = (self.tokens + since * self.per_second).min(self.per_second) - bytes as f64;
        Duration::from_secs_f64((-self.tokens / self.per_second).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_any_time_no_more_comes_than_the_rate_and_one_second_of_it() {
        let (mut bucket, mut now, mut taken) = (Bucket::new(1000, Duration::ZERO), Duration::ZERO, 0);
        for piece in [1, 700, 300, 5000, 10, 0, 2500, 999].repeat(20) {
            now += bucket.take(piece, now);
            taken += piece;
            assert!(taken as f64 <= 1000.0 * (now.as_secs_f64() + 1.0) + 1e-6, "{taken} after {now:?}");
        }
        assert!(taken as f64 >= 1000.0 * now.as_secs_f64(), "nor does it come slower");
        now += Duration::from_secs(9);
        assert_eq!(bucket.take(1000, now), Duration::ZERO);
        assert_eq!(bucket.take(500, now), Duration::from_millis(500), "rest saves up one second, not nine");
    }
}
