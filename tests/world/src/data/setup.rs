//! What a seed decides before anything happens.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use tributary_wire::{Rare, SamplingPolicy, Uncertain, WHOLE_PPM};

/// How a run differs from the usual.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Every happening is printed.
    pub shown: bool,
    /// So many devices, instead of as many as the seed says.
    pub devices: Option<usize>,
    /// Something that is wrong on purpose.
    pub breakage: Option<Breakage>,
}

/// Something wrong on purpose, in what surrounds the code that ships: a test of the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breakage {
    /// A device forgets a batch as soon as the network took it.
    FreedWhenSent,
    /// The hub answers for a batch before it has it on its disk.
    AnsweredBeforeCommit,
    /// The hub's disk says that it synced, and did not.
    HubDiskLies,
    /// A device's disk says that it synced, and did not.
    DeviceDiskLies,
    /// A device forgets at once which events it accepted.
    ForgetsAnswers,
    /// Whoever reads a source again begins a little earlier than what is stored says, and gives events new names.
    ReadsTwice,
    /// A device goes on sending when the hub says hold.
    IgnoresHold,
    /// What a device gave up is not counted.
    DropsUncounted,
    /// Predictions in sketches that are still being filled are not counted.
    SketchesUncounted,
    /// What sampling left out is not counted.
    LeavesOutUncounted,
    /// A program that starts anew takes what it sees for what is on the disk, whatever the one before it met.
    BelievesItsEyes,
    /// The hub's drive gives one file of the lake for another.
    FilesSwapped,
    /// A catalog that is made again misses a file of the lake.
    RebuiltShort,
    /// A catalog that is made again misses a file that a disk brought which was replaced since.
    ForgetsReplaced,
}

impl Breakage {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::FreedWhenSent,
        Self::AnsweredBeforeCommit,
        Self::HubDiskLies,
        Self::DeviceDiskLies,
        Self::ForgetsAnswers,
        Self::ReadsTwice,
        Self::IgnoresHold,
        Self::DropsUncounted,
        Self::SketchesUncounted,
        Self::LeavesOutUncounted,
        Self::BelievesItsEyes,
        Self::FilesSwapped,
        Self::RebuiltShort,
        Self::ForgetsReplaced,
    ];
}

/// Who brings events to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A caller who asks again until the answer says durable.
    Caller,
    /// A reader that remembers nothing and begins where the device says that it stands.
    Reader,
}

/// How a device is set up.
#[derive(Debug, Clone)]
pub struct Setup {
    /// A batch closes with so many rows …
    pub rows: usize,
    /// … or at this age.
    pub age: Duration,
    /// Disk for batches that wait.
    pub outbox_budget: u64,
    /// Who brings events.
    pub source: Source,
    /// Event ids that are remembered.
    pub remember_events: u64,
    /// Accepted events that are kept for the windows.
    pub retain_events: u64,
    /// Whether a package serves, and not the declared fallback.
    pub packaged: bool,
    /// Whether the hub has shown that it reads gaps with all their reasons.
    pub reasons: bool,
    /// What is sent of observations.
    pub sampling: SamplingPolicy,
    /// A clock that begins in 1970 and is right some time after every start from nothing.
    pub no_clock: bool,
    /// Writes of its disk take only a part at once.
    pub short_writes: bool,
    /// What its disk takes to make something durable.
    pub sync: Duration,
}

impl Setup {
    /// Some setup.
    pub fn any(chance: &mut StdRng) -> Self {
        let source = if chance.random_bool(0.5) { Source::Caller } else { Source::Reader };
        let sampling = if chance.random_bool(0.3) { policy(chance) } else { SamplingPolicy::EVERYTHING };
        Self {
            rows: chance.random_range(1..20),
            age: Duration::from_secs([1, 10, 60][chance.random_range(0..3)]),
            // Most have room for all; some must drop.
            outbox_budget: [1 << 20, 1 << 20, 1 << 20, 3_000][chance.random_range(0..4)],
            source,
            // A caller's retry can come any time; a reader needs none of the ids.
            remember_events: if source == Source::Reader && chance.random_bool(0.5) { 2 } else { 1 << 20 },
            retain_events: if chance.random_bool(0.2) { 8 } else { 1 << 20 },
            packaged: chance.random_bool(0.5),
            reasons: chance.random_bool(0.5),
            sampling,
            no_clock: chance.random_bool(0.15),
            short_writes: chance.random_bool(0.2),
            sync: Duration::from_millis([0, 0, 0, 0, 100, 2_000][chance.random_range(0..6)]),
        }
    }
}

/// Some sampling policy of a hub.
pub fn policy(chance: &mut StdRng) -> SamplingPolicy {
    let mut some = |share: f64, values: &[u64]| {
        let drawn = values[chance.random_range(0..values.len())];
        chance.random_bool(share).then_some(drawn)
    };
    SamplingPolicy {
        number: some(1.0, &[1, 2, 3]).unwrap_or(1),
        random: some(0.6, &[300_000, 20_000]).map_or(WHOLE_PPM, |share| share as u32),
        uncertain: some(0.3, &[50_000, 300_000]).map(|band| Uncertain { band: band as u32, share: WHOLE_PPM }),
        rare: some(0.3, &[600_000, WHOLE_PPM.into()]).map(|share| Rare { at_most: 200_000, share: share as u32 }),
        day_bytes: some(0.2, &[500, 5_000]),
        keep_seconds: some(0.2, &[600, 3_600]),
        outbox_bytes: some(0.1, &[3_000, 20_000]),
    }
}
