//! Names of the lake's files, as the hub's clock and a seed have them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tributary_process::clock::Clock as _;
use ulid::Ulid;

use crate::clock::WorldClock;

/// One source of names over all lives of a hub.
#[derive(Clone)]
pub(super) struct Naming {
    clock: WorldClock,
    made: Arc<AtomicU64>,
    seed: u64,
}

impl Naming {
    pub(super) fn new(clock: WorldClock, seed: u64) -> Self {
        Self { clock, made: Arc::default(), seed }
    }

    /// As in a hub of this world: by its wall clock, right or wrong, and then by chance.
    pub(super) fn source(&self) -> impl Fn() -> Ulid + Send + Sync + 'static {
        let Self { clock, made, seed } = self.clone();
        move || {
            let number = made.fetch_add(1, Ordering::Relaxed);
            // One odd factor takes no two numbers to the same name.
            let chance = u128::from(seed.wrapping_add(number)).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
            Ulid::from_parts((clock.wall() / 1000).max(0) as u64, chance)
        }
    }
}
