//! Names of new files, which sort by the time of writing.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ulid::Ulid;

/// Makes names. A catalog that is made again from the lake takes the later of two files with the same batch for the one
/// that was committed. So each name sorts behind all that were made or found before it, even when the clock was set back
/// or two are made in one millisecond.
pub(crate) struct Names {
    make: Box<dyn Fn() -> Ulid + Send + Sync>,
    /// The newest name that was made or found.
    newest: Mutex<Option<Ulid>>,
}

impl Default for Names {
    fn default() -> Self {
        Self::made_by(Ulid::new)
    }
}

impl Names {
    /// Names by this clock and chance.
    pub(crate) fn made_by(make: impl Fn() -> Ulid + Send + Sync + 'static) -> Self {
        Self { make: Box::new(make), newest: Mutex::default() }
    }

    /// A new name.
    pub(crate) fn next(&self) -> Ulid {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let made = (self.make)();
        let name = newest.filter(|newest| made <= *newest).and_then(behind).unwrap_or(made);
        *newest = Some(name);
        name
    }

    /// A file with this path exists.
    pub(crate) fn found(&self, path: &str) {
        let stem = Path::new(path).file_stem().and_then(|stem| stem.to_str());
        let found = stem.and_then(|stem| Ulid::from_string(stem).ok());
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        *newest = found.max(*newest);
    }
}

/// The name behind a name; none behind the last one that there is.
fn behind(name: Ulid) -> Option<Ulid> {
    name.increment().or_else(|| {
        let next = name.timestamp_ms() + 1;
        (next < 1 << Ulid::TIME_BITS).then(|| Ulid::from_parts(next, 0))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn names_go_on_above_all_that_were_made_or_found() {
        let clock = AtomicU64::new(1_000);
        let names = Names::made_by(move || Ulid::from_parts(clock.fetch_sub(100, Ordering::Relaxed), 7));
        let first = names.next();
        assert_eq!(first, Ulid::from_parts(1_000, 7));
        let second = names.next();
        assert!(second > first, "the clock went back: {second} {first}");
        let found = Ulid::from_parts(5_000, u128::MAX);
        names.found(&format!("events/day=2026-01-01/{found}.parquet"));
        names.found("events/day=2026-01-01/by-hand.parquet");
        names.found(&format!("events/day=2026-01-01/{second}.parquet"));
        let third = names.next();
        assert_eq!(third, Ulid::from_parts(5_001, 0), "behind the newest file, whose millisecond is full");
        assert!(names.next() > third);
    }

    #[test]
    fn behind_the_last_name_that_there_is_names_are_made_by_the_clock() {
        let names = Names::made_by(|| Ulid::from_parts(1_000, 7));
        names.found(&format!("{}.parquet", Ulid(u128::MAX)));
        assert_eq!(names.next(), Ulid::from_parts(1_000, 7));
    }
}
