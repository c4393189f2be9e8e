//! Waiting for a condition with a deadline: the one way to wait.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks `look` again and again until it gives a value. An error of `look` ends the wait; so does the deadline, with
/// the last thing `look` said about what is missing.
pub async fn until<T>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        let missing = match look().await? {
            Ok(value) => return Ok(value),
            Err(missing) => missing,
        };
        if Instant::now() >= end {
            bail!("{what}: not within {} s; {missing}", deadline.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
