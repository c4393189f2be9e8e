//! Waits as the budget says.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use edge_agent_core::download::{Bucket, Hours};
use tributary_process::clock::Clock;
use tributary_wire::Micros;

use super::status::Entry;
use crate::sources::rfc3339;

/// The clock may jump meanwhile, so it is looked at again this often.
const LOOK: Duration = Duration::from_secs(30);
/// Shorter waits are part of any download and not worth a word.
const WORTH_SAYING: Duration = Duration::from_secs(1);

/// What packages may take, all together.
pub(super) struct Purse {
    hours: Hours,
    bucket: Option<Mutex<Bucket>>,
    /// Never before the floor.
    clock: Arc<dyn Clock>,
}

impl Purse {
    pub(super) fn new(hours: Hours, bytes_per_second: u64, clock: Arc<dyn Clock>) -> Self {
        let now = Duration::from_micros(clock.monotonic());
        let bucket = (bytes_per_second > 0).then(|| Mutex::new(Bucket::new(bytes_per_second, now)));
        Self { hours, bucket, clock }
    }

    /// Whether packages may be fetched at this time of day.
    pub(super) fn is_open(&self) -> bool {
        self.hours.opens(Micros(self.clock.wall())).is_none()
    }

    /// Waits until they may.
    pub(super) async fn opened(&self, entry: &Entry) {
        while let Some(opens) = self.hours.opens(Micros(self.clock.wall())) {
            entry.waits(format!("its hours, which begin at {}", rfc3339(&opens)));
            let left = Duration::from_micros(opens.0.saturating_sub(self.clock.wall()).max(0) as u64);
            tokio::time::sleep(left.min(LOOK)).await;
        }
        entry.goes_on();
    }

    /// So many bytes have come: waits until more may.
    pub(super) async fn spend(&self, bytes: u64, entry: &Entry) {
        let Some(bucket) = &self.bucket else { return };
        let now = Duration::from_micros(self.clock.monotonic());
        let wait = bucket.lock().unwrap_or_else(PoisonError::into_inner).take(bytes, now);
        if wait >= WORTH_SAYING {
            entry.waits("its budget of bytes a second".to_owned());
        }
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
            entry.goes_on();
        }
    }
}
