//! Slows what comes faster than it may; nothing is lost by waiting.

use std::time::Duration;

use tokio::time::Instant;

/// A token bucket that holds one second's worth.
#[derive(Debug)]
pub(crate) struct Pace {
    per_second: f64,
    tokens: f64,
    filled: Instant,
}

impl Pace {
    pub fn new(per_second: u64, now: Instant) -> Self {
        let per_second = per_second.max(1) as f64;
        Self { per_second, tokens: per_second, filled: now }
    }

    /// Takes so many tokens; how long to wait before using them.
    pub fn take(&mut self, tokens: usize, now: Instant) -> Duration {
        self.fill(now);
        self.tokens -= tokens as f64;
        Duration::from_secs_f64((-self.tokens / self.per_second).max(0.0))
    }

    /// Takes so many tokens if they are there.
    pub fn take_if_free(&mut self, tokens: usize, now: Instant) -> bool {
        self.fill(now);
        let free = self.tokens >= tokens as f64;
        if free {
            self.tokens -= tokens as f64;
        }
        free
    }

    /// Whether nothing was taken for so long that a new one would be no different.
    pub fn is_rested(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.tokens >= self.per_second
    }

    fn fill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + since * self.per_second).min(self.per_second);
        self.filled = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_burst_of_one_second_passes_and_the_rest_is_spread() {
        let start = Instant::now();
        let mut pace = Pace::new(10, start);
        assert!((0..10).all(|_| pace.take(1, start).is_zero()));
        assert_eq!(pace.take(1, start), Duration::from_millis(100));
        assert!(!pace.is_rested(start));
        assert!(pace.take(1, start + Duration::from_secs(5)).is_zero());
        assert!(!pace.take_if_free(10, start + Duration::from_secs(5)));
        assert!(pace.take_if_free(9, start + Duration::from_secs(5)));
        assert!(pace.is_rested(start + Duration::from_secs(9)));
    }
}
