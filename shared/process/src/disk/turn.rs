//! One writer of a path at a time, in one program.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What is being written.
static TAKEN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
/// Told whenever somebody is done.
static DONE: Condvar = Condvar::new();

/// The turn of whoever holds it to write a path.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Path);

impl<'a> Turn<'a> {
    /// Waits until nobody else writes this path.
    pub(super) fn take(path: &'a Path) -> Self {
        let mut taken = DONE.wait_while(taken(), |taken| taken.contains(path)).unwrap_or_else(PoisonError::into_inner);
        taken.insert(path.to_owned());
        Self(path)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        taken().remove(self.0);
        DONE.notify_all();
    }
}

fn taken() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}
