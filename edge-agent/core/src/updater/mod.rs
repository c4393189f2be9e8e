//! How a model line moves from one package to another, and back.
//!
//! ```text
//! Idle ─► Fetching ─► Staged ─► Trial ─► Committed
//!                                  └───► RolledBack   (stays until a newer generation)
//! ```
//!
//! One [`Updater`] per model line and role. Its shell carries out [`Action`]s and tells what became of them as
//! [`Input`]s. Whatever must survive is stored before it is acted upon: an action that depends on the new state waits
//! inside until [`Input::Persisted`]. Only going back to the committed package waits for nothing: it is safe in every
//! stored state, and a full disk must not keep a bad package in service.

mod messages;
mod probation;
mod record;
mod record_v1;
mod inputs;
mod transitions;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

pub use messages::{Action, Doubt, FetchFailure, Input, ServeFailure};
pub use probation::{Verdict, judge};
pub use record::{Candidate, Record, Undone, Wanted};
pub use record_v1::RecordV1;
use tributary_wire::{LineName, LineReport, ReleaseRef, Role, Sha256, TrialReport, Unfit};

use crate::Now;
use crate::backoff::Backoff;

/// How patient an updater is.
#[derive(Debug, Clone, Copy)]
pub struct UpdaterSettings {
    /// Restarts that a trial survives.
    pub crash_allowance: u32,
    /// How long a staged package waits for a hub that cannot be reached before its trial begins all the same.
    pub offline_wait: Duration,
    /// How often an online device repeats its question.
    pub ask_every: Duration,
    /// First wait after a failed download.
    pub fetch_retry: Duration,
    /// Longest wait after a failed download.
    pub fetch_retry_cap: Duration,
    /// Downloads that end in the wrong bytes before the release is given up.
    pub damaged_attempts: u32,
    /// Wait after a failed write of the record.
    pub write_retry: Duration,
}

impl Default for UpdaterSettings {
    fn default() -> Self {
        Self {
            crash_allowance: 0,
            offline_wait: Duration::from_secs(300),
            ask_every: Duration::from_secs(10),
            fetch_retry: Duration::from_secs(1),
            fetch_retry_cap: Duration::from_secs(300),
            damaged_attempts: 3,
            write_retry: Duration::from_secs(5),
        }
    }
}

/// The state machine of one model line in one role.
#[derive(Debug, Clone)]
pub struct Updater {
    line: LineName,
    role: Role,
    settings: UpdaterSettings,
    /// As decided; may be ahead of the disk.
    record: Record,
    /// As on disk: what reports show.
    durable: Record,
    /// Records on their way to the disk, oldest first.
    unwritten: VecDeque<(u64, Record)>,
    /// Actions that wait for the record of their ticket.
    held: VecDeque<(u64, Action)>,
    ticket: u64,
    rewrite_at: Option<Duration>,
    out: Vec<Action>,
    now: Now,

    stopping: bool,
    online: bool,
    /// Since when a staged package waits for a hub that is not there.
    offline_since: Duration,
    confirmed: bool,
    ask_at: Duration,
    fetching: Option<Sha256>,
    /// No download, and no question whether a trial may begin, before this.
    fetch_at: Duration,
    fetch_backoff: Backoff,
    damaged: u32,
    /// A staged package about which the stored metadata is asked …
    vouching: Option<Sha256>,
    /// … and one for which it has just spoken: that counts now or never.
    vouched: Option<Sha256>,
    /// What was last ordered to serve …
    ordered: Option<ReleaseRef>,
    /// … and whether it does.
    active: bool,
    evidence: TrialReport,
    /// Counted from the first prediction of the trial.
    probation_ends: Duration,
    error: Option<String>,
}

impl Updater {
    /// Begins from what is stored (nothing, on a new device). A trial found there was cut short by a restart.
    pub fn recover(
        line: LineName,
        role: Role,
        settings: UpdaterSettings,
        record: Record,
        now: Now,
        seed: u64,
    ) -> (Self, Vec<Action>) {
        let mut updater = Self {
            line,
            role,
            settings,
            durable: record.clone(),
            record,
            unwritten: VecDeque::new(),
            held: VecDeque::new(),
            ticket: 0,
            rewrite_at: None,
            out: Vec::new(),
            now,
            stopping: false,
            online: false,
            offline_since: now.monotonic,
            confirmed: false,
            ask_at: now.monotonic,
            fetching: None,
            fetch_at: now.monotonic,
            fetch_backoff: Backoff::new(settings.fetch_retry, settings.fetch_retry_cap, seed),
            damaged: 0,
            vouching: None,
            vouched: None,
            ordered: None,
            active: false,
            evidence: TrialReport::default(),
            probation_ends: now.monotonic,
            error: None,
        };
        updater.serve_committed();
        if let Candidate::Trial { release, probation, crashes, proven } = updater.record.candidate.clone() {
            if proven {
                // The record that says so is on the disk already: it serves even if nothing can be written any more.
                updater.serve(release);
            } else if crashes >= settings.crash_allowance {
                updater.undo("the device restarted during the trial".into(), Vec::new());
            } else {
                updater.begin_trial(release, probation, crashes + 1, false);
            }
        }
        updater.look_again();
        updater.pursue();
        let actions = std::mem::take(&mut updater.out);
        (updater, actions)
    }

    /// Takes in what happened and returns what to do now.
    pub fn handle(&mut self, now: Now, input: Input) -> Vec<Action> {
        self.now = now;
        match input {
            Input::Assigned(wanted) => self.assigned(wanted),
            Input::Unassigned(generation) => self.unassigned(generation),
            Input::Confirmed { generation, expires } => self.confirm(generation, expires),
            Input::Online(online) => self.connection(online),
            Input::Fetched { sha256, probation } => self.fetched(sha256, probation),
            Input::Vouched { sha256, word } => self.take_word(sha256, word),
            Input::FetchFailed { sha256, failure, reason } => self.fetch_failed(sha256, failure, reason),
            Input::Serving(package) => self.serving(package),
            Input::ServeFailed { sha256, failure, reason } => self.serve_failed(sha256, failure, reason),
            Input::Evidence { sha256, evidence } => self.take_evidence(sha256, evidence),
            Input::Persisted(ticket) => self.persisted(ticket),
            Input::PersistFailed => self.rewrite_at = Some(now.monotonic + self.settings.write_retry),
            Input::Stopping => self.stop(),
            Input::Woken => {}
        }
        if !self.stopping {
            self.pursue();
        }
        self.vouched = None;
        std::mem::take(&mut self.out)
    }

    /// When to say [`Input::Woken`] if nothing else happens.
    pub fn next_wake(&self) -> Option<Duration> {
        // One that has expired, under which a lost package is fetched again, ends nothing any more.
        let expiry = self.record.wanted.as_ref().and_then(|wanted| {
            let left = u64::try_from(wanted.expires.since(self.now.wall)).ok()?;
            Some(self.now.monotonic.saturating_add(Duration::from_micros(left + 1)))
        });
        let due = match &self.record.candidate {
            Candidate::None => None,
            Candidate::Fetching { release } if self.fetching != Some(release.sha256) => expiry.min(Some(self.fetch_at)),
            Candidate::Fetching { .. } => expiry,
            Candidate::Staged { release, .. } if self.vouching == Some(release.sha256) => expiry,
            Candidate::Staged { .. } if self.may_go_on() => expiry.min(Some(self.fetch_at)),
            Candidate::Staged { .. } if self.online => expiry.min(Some(self.ask_at)),
            Candidate::Staged { .. } => expiry.min(Some(self.offline_since + self.settings.offline_wait)),
            Candidate::Trial { .. } if self.evidence.predictions == 0 => None,
            Candidate::Trial { .. } => Some(self.probation_ends),
        };
        [due, self.rewrite_at].into_iter().flatten().min()
    }

    /// Where this line stands, as far as it is durable.
    pub fn report(&self, engine: &str) -> LineReport {
        let record = &self.durable;
        LineReport {
            line: self.line.clone(),
            role: self.role.clone(),
            state: record.state(),
            committed: record.committed.as_ref().map(record::package),
            previous: record.previous.as_ref().map(record::package),
            candidate: record.candidate.release().map(record::package),
            undone: record.undone.as_ref().map(|undone| (record::package(&undone.release), undone.reason.clone())),
            error: self.error.clone(),
            engine: engine.into(),
            trial: self.evidence,
        }
    }

    /// The assigned release that this device cannot run, as far as that is durable.
    pub fn unfit(&self) -> Option<Unfit> {
        let undone = self.durable.undone.as_ref().filter(|undone| !undone.unfit.is_empty())?;
        Some(Unfit {
            line: self.line.clone(),
            role: self.role.clone(),
            package: record::package(&undone.release),
            reasons: undone.unfit.clone(),
        })
    }

    /// Whether this line waits for the hub's word.
    pub fn asks(&self) -> bool {
        matches!(self.durable.candidate, Candidate::Staged { .. })
            && matches!(self.record.candidate, Candidate::Staged { .. })
            && !self.confirmed
    }

    /// Packages that must stay on disk: those of the decided record, and of all that may be found after a crash.
    pub fn references(&self) -> Vec<Sha256> {
        let unwritten = self.unwritten.iter().flat_map(|(_, record)| record.references());
        self.record.references().chain(self.durable.references()).chain(unwritten).collect()
    }

    /// The package that was last ordered to serve.
    pub fn ordered(&self) -> Option<&ReleaseRef> {
        self.ordered.as_ref()
    }

    /// As decided, for tests and status pages.
    pub fn record(&self) -> &Record {
        &self.record
    }
}
