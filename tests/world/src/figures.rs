//! What many runs came to.

use std::fmt;
use std::time::Duration;

use crate::faults::Faults;

const YEAR: f64 = 365.25 * 86_400.0;

/// What one run came to.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// Happenings.
    pub steps: u64,
    /// Of those, in the busiest minute.
    pub busiest: u64,
    /// Time that passed in the world.
    pub time: Duration,
    /// Time that devices lived through, added up.
    pub lived: Duration,
    /// Records that follow from events which devices answered for: each event itself, and its observation.
    pub accepted: u64,
    /// Of those, records in the lake.
    pub found: u64,
    /// Records that devices gave up and reported.
    pub dropped: u64,
    /// Of those, because the device's disk did not keep them.
    pub corrupt: u64,
    /// Records that sampling left out.
    pub left_out: u64,
    /// Records that were nowhere but on a disk that was replaced.
    pub replaced: u64,
    /// How often a stream was told to hold because the hub had too much to do.
    pub held: u64,
    /// What went wrong.
    pub faults: Faults,
    /// What happened, as one number.
    pub trace: u64,
}

/// What all came to.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// How many.
    pub runs: u64,
    /// All together.
    pub sum: Run,
}

impl Figures {
    /// Takes in a run.
    pub fn add(&mut self, run: &Run) {
        self.runs += 1;
        self.sum.steps += run.steps;
        self.sum.busiest = self.sum.busiest.max(run.busiest);
        self.sum.time += run.time;
        self.sum.lived += run.lived;
        self.sum.accepted += run.accepted;
        self.sum.found += run.found;
        self.sum.dropped += run.dropped;
        self.sum.corrupt += run.corrupt;
        self.sum.left_out += run.left_out;
        self.sum.replaced += run.replaced;
        self.sum.held += run.held;
        self.sum.faults.add(&run.faults);
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Run { steps, busiest, lived, accepted, found, dropped, corrupt, .. } = &self.sum;
        let Run { left_out, replaced, held, faults, .. } = &self.sum;
        writeln!(f, "{:>12} seeds", self.runs)?;
        writeln!(f, "{:>12.2} device-years", lived.as_secs_f64() / YEAR)?;
        writeln!(f, "{steps:>12} steps, at most {busiest} in a minute of one world")?;
        writeln!(f, "{accepted:>12} records accepted =")?;
        writeln!(f, "{found:>12}   in the lake, each once")?;
        writeln!(f, "{:>12}   dropped for want of room or time, and reported", dropped - corrupt)?;
        writeln!(f, "{corrupt:>12}   dropped because the disk did not keep them, and reported")?;
        writeln!(f, "{left_out:>12}   left out by the sampling policy, as devices count it")?;
        writeln!(f, "{replaced:>12}   on disks that were replaced")?;
        // A run in which one is lost or doubled has failed, and adds to no figures.
        writeln!(f, "{:>12} lost", 0)?;
        writeln!(f, "{:>12} doubled", 0)?;
        writeln!(f, "{held:>12} times a stream was told to hold: the hub had too much to do")?;
        writeln!(f, "{:>12} faults", faults.total())?;
        for (fault, times) in faults.iter() {
            writeln!(f, "{times:>12}   {fault}")?;
        }
        Ok(())
    }
}
