//! One download of a package at a time: two roles may be ordered the same release, and it has one file.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;
use tributary_wire::Sha256;

/// Whose turn it is, by package. Only those that somebody holds or waits for are here.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<BTreeMap<Sha256, Weak<tokio::sync::Mutex<()>>>>);

/// The turn to bring a package. It ends with the last clone, so that what still writes beside the runtime after its task
/// was ended keeps it.
#[derive(Debug, Clone)]
pub(super) struct Turn(#[expect(dead_code, reason = "held, not read")] Arc<OwnedMutexGuard<()>>);

impl Turns {
    pub(super) async fn take(&self, sha256: &Sha256) -> Turn {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let held = turns.get(sha256).and_then(Weak::upgrade);
            held.unwrap_or_else(|| {
                let turn = Arc::default();
                turns.insert(*sha256, Arc::downgrade(&turn));
                turn
            })
        };
        Turn(Arc::new(turn.lock_owned().await))
    }
}
