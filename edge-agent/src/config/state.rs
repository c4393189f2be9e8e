//! What is kept on disk, and how much of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tributary_process::config::{ByteSize, HumanDuration};

/// How state is kept.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// Memory for redb's pages.
    pub cache: ByteSize,
    /// Memory for sled's pages.
    pub window_cache: ByteSize,
    /// Event ids are remembered for this long, by times that the hub has signed and not by the device's clock …
    pub remember: HumanDuration,
    /// … and for at most this many later events.
    pub remember_events: u64,
    /// Most accepted events kept to rebuild windows from, once they are batched.
    pub retain_events: u64,
    /// The window snapshot is written after this many events …
    pub snapshot_events: u64,
    /// … or after this long.
    pub snapshot_every: HumanDuration,
    /// Disk for packages: what is committed, the one before it and one on its way. A release that does not fit beside
    /// what is there is not downloaded. Unset: what the disk has, but for a reserve of 16 MiB.
    pub packages: Option<ByteSize>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            cache: ByteSize(4 << 20),
            window_cache: ByteSize(4 << 20),
            remember: HumanDuration(Duration::from_secs(7 * 86_400)),
            remember_events: 200_000,
            retain_events: 500_000,
            snapshot_events: 4096,
            snapshot_every: HumanDuration(Duration::from_secs(10)),
            packages: None,
        }
    }
}

/// How records are grouped and kept for the hub.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outbox {
    /// A batch is closed at this many records …
    pub batch_rows: usize,
    /// … or about this many bytes before compression …
    pub batch_bytes: ByteSize,
    /// … or when its first record is this old.
    pub batch_age: HumanDuration,
    /// Disk for batches that the hub has not acknowledged. Beyond it the oldest observations are dropped, then events,
    /// and reported as gaps; sketches only when nothing else is left. The hub may lower it and never raise it.
    pub budget: ByteSize,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            batch_rows: 512,
            batch_bytes: ByteSize(512 << 10),
            batch_age: HumanDuration(Duration::from_secs(1)),
            budget: ByteSize(256 << 20),
        }
    }
}
