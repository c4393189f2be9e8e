//! What runs came to.

use std::collections::BTreeMap;
use std::fmt;

use crate::faults::Faults;

/// What one run, or many, came to.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Worlds.
    pub runs: u64,
    /// Devices in them.
    pub devices: u64,
    /// Seconds that passed in the worlds.
    pub seconds: f64,
    /// Seconds that devices lived through, added up.
    pub device_seconds: f64,
    /// Steps.
    pub events: u64,
    /// Of those, in the busiest minute.
    pub busiest: u64,
    /// Rollouts begun.
    pub rollouts: u64,
    /// Commands of operators.
    pub commands: u64,
    /// Assignments sent.
    pub assignments: u64,
    /// Processes started.
    pub starts: u64,
    /// Packages put in place.
    pub swaps: u64,
    /// Releases that a device found itself unfit for.
    pub unfit: u64,
    /// Predictions made.
    pub predictions: u64,
    /// What the network did to messages.
    pub faults: Faults,
    /// What else went wrong.
    pub wrong: BTreeMap<&'static str, u64>,
    /// What happened in the last run, as one number.
    pub trace: u64,
}

impl Figures {
    /// One more of a kind of fault.
    pub(super) fn add(&mut self, what: &'static str) {
        *self.wrong.entry(what).or_default() += 1;
    }

    /// Takes in another run.
    pub fn take(&mut self, other: &Self) {
        self.runs += other.runs;
        self.devices += other.devices;
        self.seconds += other.seconds;
        self.device_seconds += other.device_seconds;
        self.events += other.events;
        self.busiest = self.busiest.max(other.busiest);
        self.rollouts += other.rollouts;
        self.commands += other.commands;
        self.assignments += other.assignments;
        self.starts += other.starts;
        self.swaps += other.swaps;
        self.unfit += other.unfit;
        self.predictions += other.predictions;
        self.faults.add(&other.faults);
        for (what, times) in &other.wrong {
            *self.wrong.entry(what).or_default() += times;
        }
        self.trace = other.trace;
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let years = self.device_seconds / (365.25 * 86_400.0);
        let faults = self.faults.total() + self.wrong.values().sum::<u64>();
        writeln!(f, "{:>12} worlds with {} devices", self.runs, self.devices)?;
        writeln!(f, "{years:>12.2} device-years")?;
        let rows = [
            (self.events, "steps"),
            (self.busiest, "of them in the busiest minute of one world"),
            (self.rollouts, "rollouts"),
            (self.commands, "commands of operators"),
            (self.assignments, "assignments sent"),
            (self.swaps, "packages put in place"),
            (self.unfit, "releases that a device is unfit for"),
            (self.predictions, "predictions"),
            (self.starts, "starts of an agent"),
            (faults, "faults"),
        ];
        for (count, what) in rows {
            writeln!(f, "{count:>12} {what}")?;
        }
        for (what, times) in &self.wrong {
            writeln!(f, "{times:>12}   {what}")?;
        }
        for (fault, times) in self.faults.iter() {
            writeln!(f, "{times:>12}   {fault}")?;
        }
        Ok(())
    }
}
