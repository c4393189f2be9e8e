//! What a seed decides before anything happens.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use tributary_wire::SamplingPolicy;

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
    /// What a device gave up is not counted.
    DropsUncounted,
}

impl Breakage {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::FreedWhenSent,
        Self::AnsweredBeforeCommit,
        Self::HubDiskLies,
        Self::DeviceDiskLies,
        Self::ForgetsAnswers,
        Self::ReadsTwice,
        Self::DropsUncounted,
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
    /// What is sent of observations.
    pub sampling: SamplingPolicy,
    /// A clock that begins in 1970 and is right some time after every start from nothing.
    pub no_clock: bool,
    /// Writes of its disk take only a part at once.
    pub short_writes: bool,
}

impl Setup {
    /// Some setup.
    pub fn any(chance: &mut StdRng) -> Self {
        let source = if chance.random_bool(0.5) { Source::Caller } else { Source::Reader };
        let mut sampling = SamplingPolicy::EVERYTHING;
        if chance.random_bool(0.25) {
            sampling.random = 300_000;
        }
        if chance.random_bool(0.1) {
            sampling.keep_seconds = Some(600);
        }
        Self {
            rows: chance.random_range(1..20),
            age: Duration::from_secs([1, 10, 60][chance.random_range(0..3)]),
            // Most have room for all; some must drop.
            outbox_budget: [1 << 20, 1 << 20, 1 << 20, 3_000][chance.random_range(0..4)],
            source,
            // A caller's retry can come any time; a reader needs none of the ids.
            remember_events: if source == Source::Reader && chance.random_bool(0.5) { 2 } else { 1 << 20 },
            retain_events: if chance.random_bool(0.2) { 8 } else { 1 << 20 },
            sampling,
            no_clock: chance.random_bool(0.15),
            short_writes: chance.random_bool(0.2),
        }
    }
}
