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

mod probation;
mod record;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

pub use probation::{Verdict, judge};
pub use record::{Candidate, Record, Undone, Wanted};
use tributary_release::Probation;
use tributary_wire::{Generation, LineName, LineReport, ReleaseRef, Role, Sha256, TrialReport};

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

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A verified assignment, not older than the last, wants this. The one that is known already changes nothing.
    Assigned(Wanted),
    /// A verified assignment of this generation wants nothing of this line and role.
    Unassigned(Generation),
    /// The hub sent the assignment of this generation again: the answer to a question.
    Confirmed(Generation),
    /// The connection to the hub stands, or is gone.
    Online(bool),
    /// The package is on disk and passed every check, golden cases included.
    Fetched {
        /// Which.
        sha256: Sha256,
        /// What its trial has to show.
        probation: Probation,
    },
    /// It could not be fetched.
    FetchFailed {
        /// Which.
        sha256: Sha256,
        /// Whether to try again.
        failure: FetchFailure,
        /// Why, in words.
        reason: String,
    },
    /// Since now this package serves (`None`: the declared fallback).
    Serving(Option<Sha256>),
    /// This package could not be made to serve.
    ServeFailed {
        /// Which.
        sha256: Sha256,
        /// Why, in words.
        reason: String,
    },
    /// What the serving package has done since it began.
    Evidence {
        /// Which.
        sha256: Sha256,
        /// What.
        evidence: TrialReport,
    },
    /// The record of this ticket, and all before it, is durable.
    Persisted(u64),
    /// The record could not be written.
    PersistFailed,
    /// Time passed.
    Woken,
}

/// Why a package was not fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchFailure {
    /// The hub, or this device's disk, was not able to; later it may be.
    Unreachable,
    /// The bytes that came are not those that were released; a transfer may have spoilt them.
    Damaged,
    /// It is what was released, and this device must not run it.
    Refused,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Make this record durable, then say [`Input::Persisted`].
    Persist {
        /// To be handed back.
        ticket: u64,
        /// What to store; it replaces what was stored before.
        record: Box<Record>,
    },
    /// Download (or find on disk) and check this release, then say [`Input::Fetched`] or [`Input::FetchFailed`].
    Fetch(ReleaseRef),
    /// Make this package serve (`None`: the declared fallback) unless a newer order has replaced this one, then say [`Input::Serving`] or [`Input::ServeFailed`].
    Serve(Option<ReleaseRef>),
    /// Tell the hub where this line stands.
    Report,
    /// Packages may have become unreferenced.
    Collect,
}

/// The state machine of one model line in one role.
#[derive(Debug)]
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

    online: bool,
    /// Since when a staged package waits for a hub that is not there.
    offline_since: Duration,
    confirmed: bool,
    ask_at: Duration,
    fetching: Option<Sha256>,
    fetch_at: Duration,
    fetch_backoff: Backoff,
    damaged: u32,
    /// What was last ordered to serve …
    ordered: Option<ReleaseRef>,
    /// … and whether it does.
    active: bool,
    evidence: TrialReport,
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
            online: false,
            offline_since: now.monotonic,
            confirmed: false,
            ask_at: now.monotonic,
            fetching: None,
            fetch_at: now.monotonic,
            fetch_backoff: Backoff::new(settings.fetch_retry, settings.fetch_retry_cap, seed),
            damaged: 0,
            ordered: None,
            active: false,
            evidence: TrialReport::default(),
            probation_ends: now.monotonic,
            error: None,
        };
        updater.serve_committed();
        if let Candidate::Trial { release, probation, crashes, proven } = updater.record.candidate.clone() {
            if !proven && crashes >= settings.crash_allowance {
                updater.undo("the device restarted during the trial".into());
            } else {
                let crashes = if proven { crashes } else { crashes + 1 };
                updater.begin_trial(release, probation, crashes, proven);
            }
        }
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
            Input::Confirmed(generation) => self.confirm(generation),
            Input::Online(online) => self.connection(online),
            Input::Fetched { sha256, probation } => self.fetched(sha256, probation),
            Input::FetchFailed { sha256, failure, reason } => self.fetch_failed(sha256, failure, reason),
            Input::Serving(package) => self.serving(package),
            Input::ServeFailed { sha256, reason } => self.serve_failed(sha256, reason),
            Input::Evidence { sha256, evidence } => self.take_evidence(sha256, evidence),
            Input::Persisted(ticket) => self.persisted(ticket),
            Input::PersistFailed => self.rewrite_at = Some(now.monotonic + self.settings.write_retry),
            Input::Woken => {}
        }
        self.pursue();
        std::mem::take(&mut self.out)
    }

    /// When to say [`Input::Woken`] if nothing else happens.
    pub fn next_wake(&self) -> Option<Duration> {
        let expiry = self.record.wanted.as_ref().map(|wanted| {
            let left = wanted.expires.since(self.now.wall).max(0) as u64 + 1;
            self.now.monotonic.saturating_add(Duration::from_micros(left))
        });
        let due = match &self.record.candidate {
            Candidate::None => None,
            Candidate::Fetching { release } if self.fetching != Some(release.sha256) => expiry.min(Some(self.fetch_at)),
            Candidate::Fetching { .. } => expiry,
            Candidate::Staged { .. } if self.online => expiry.min(Some(self.ask_at)),
            Candidate::Staged { .. } => expiry.min(Some(self.offline_since + self.settings.offline_wait)),
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

/// Inputs.
impl Updater {
    fn assigned(&mut self, wanted: Wanted) {
        if self.record.wanted.as_ref().is_some_and(|known| known.generation >= wanted.generation) {
            return;
        }
        // A newer word of a hub that is there answers the question too, if it is still about the staged package.
        let staged = matches!(&self.record.candidate, Candidate::Staged { release, .. } if *release == wanted.release);
        self.confirmed = self.online && staged;
        self.record.undone = None;
        self.record.wanted = Some(wanted);
        self.forget_attempts();
        self.store();
    }

    fn unassigned(&mut self, generation: Generation) {
        if self.record.wanted.as_ref().is_some_and(|known| known.generation < generation) {
            self.record.undone = None;
            self.record.wanted = None;
            self.forget_attempts();
            self.store();
        }
    }

    fn confirm(&mut self, generation: Generation) {
        let current = self.record.wanted.as_ref().is_some_and(|wanted| wanted.generation == generation);
        if current && self.online && matches!(self.record.candidate, Candidate::Staged { .. }) {
            self.confirmed = true;
        }
    }

    fn connection(&mut self, online: bool) {
        if self.online && !online {
            self.offline_since = self.now.monotonic;
            self.confirmed = false;
        }
        if !self.online && online {
            self.ask_at = self.now.monotonic;
            // The hub is back: a download that waits for it need not wait any longer.
            self.fetch_at = self.now.monotonic;
        }
        self.online = online;
    }

    fn fetched(&mut self, sha256: Sha256, probation: Probation) {
        if self.fetching == Some(sha256) {
            self.fetching = None;
        }
        match &self.record.candidate {
            Candidate::Fetching { release } if release.sha256 == sha256 => {
                self.record.candidate = Candidate::Staged { release: release.clone(), probation };
                self.error = None;
                self.confirmed = false;
                self.ask_at = self.now.monotonic;
                self.offline_since = self.offline_since.max(self.now.monotonic);
                self.store();
            }
            _ => {}
        }
    }

    fn fetch_failed(&mut self, sha256: Sha256, failure: FetchFailure, reason: String) {
        if self.fetching != Some(sha256) {
            return;
        }
        self.fetching = None;
        self.fetch_at = self.now.monotonic + self.fetch_backoff.next_wait();
        if !matches!(&self.record.candidate, Candidate::Fetching { release } if release.sha256 == sha256) {
            return;
        }
        self.damaged += u32::from(failure == FetchFailure::Damaged);
        let hopeless = failure == FetchFailure::Refused || self.damaged >= self.settings.damaged_attempts;
        match hopeless {
            true => self.undo(reason),
            false => self.complain(reason),
        }
    }

    fn serving(&mut self, package: Option<Sha256>) {
        if self.ordered.as_ref().map(|release| release.sha256) != package {
            return;
        }
        self.active = true;
        if let Candidate::Trial { release, probation, proven, .. } = &self.record.candidate
            && Some(release.sha256) == package
        {
            self.probation_ends = self.now.monotonic + Duration::from_secs(probation.timeout_s);
            if *proven {
                self.commit();
            }
        }
        self.emit(Action::Report);
    }

    fn serve_failed(&mut self, sha256: Sha256, reason: String) {
        if self.ordered.as_ref().is_none_or(|release| release.sha256 != sha256) {
            return;
        }
        if matches!(&self.record.candidate, Candidate::Trial { release, .. } if release.sha256 == sha256) {
            self.undo(reason);
        } else if self.record.committed.as_ref().is_some_and(|release| release.sha256 == sha256) {
            self.fall_back(reason);
        }
    }

    fn take_evidence(&mut self, sha256: Sha256, evidence: TrialReport) {
        if self.ordered.as_ref().is_some_and(|release| release.sha256 == sha256) {
            self.evidence = evidence;
        }
    }

    fn persisted(&mut self, ticket: u64) {
        while let Some((_, record)) = self.unwritten.pop_front_if(|(written, _)| *written <= ticket) {
            self.durable = record;
        }
        if self.unwritten.is_empty() {
            self.rewrite_at = None;
        }
        while let Some((_, action)) = self.held.pop_front_if(|(needs, _)| *needs <= ticket) {
            self.out.push(action);
        }
    }
}

/// Transitions.
impl Updater {
    /// Moves on as far as the present knowledge allows.
    fn pursue(&mut self) {
        if self.rewrite_at.is_some_and(|at| at <= self.now.monotonic) {
            self.rewrite_at = None;
            // Records replace each other, so the newest stands for all that wait.
            if let Some((ticket, record)) = self.unwritten.back() {
                self.out.push(Action::Persist { ticket: *ticket, record: Box::new(record.clone()) });
            }
        }
        let goal = self.goal();
        if let Some(candidate) = self.record.candidate.release()
            && goal.as_ref().is_none_or(|goal| goal.release != *candidate)
        {
            self.withdraw();
        }
        let Some(goal) = goal else { return };
        match self.record.candidate.clone() {
            Candidate::None => {
                self.record.candidate = Candidate::Fetching { release: goal.release.clone() };
                self.fetch_at = self.now.monotonic;
                self.store();
                self.fetch(goal.release);
            }
            Candidate::Fetching { release } => self.fetch(release),
            Candidate::Staged { release, probation } => self.staged(&goal, release, probation),
            Candidate::Trial { release, probation, proven: false, .. } => self.trial(&release, &probation),
            Candidate::Trial { .. } => {}
        }
    }

    /// The package to move towards, if it is not the committed one and nothing forbids it.
    fn goal(&mut self) -> Option<Wanted> {
        let wanted = self.record.wanted.clone()?;
        let release = &wanted.release;
        let gave_up = |undone: &Undone| undone.generation == wanted.generation && undone.release == *release;
        if self.record.undone.as_ref().is_some_and(gave_up) {
            return None;
        }
        if let Some(committed) = &self.record.committed {
            if committed.sha256 == release.sha256 {
                return None;
            }
            if release.version == committed.version {
                let reason = format!("another package is committed as version {}", release.version);
                return self.refuse(reason);
            }
            if release.version < committed.version && !wanted.allow_lower {
                let reason = format!("version {} is below the committed {}", release.version, committed.version);
                return self.refuse(reason);
            }
        }
        let begun = matches!(&self.record.candidate, Candidate::Trial { release, .. } if *release == wanted.release);
        if !begun && self.now.wall > wanted.expires {
            let reason = format!("the assignment to install version {} expired", release.version);
            return self.refuse(reason);
        }
        Some(wanted)
    }

    fn refuse(&mut self, reason: String) -> Option<Wanted> {
        self.complain(reason);
        None
    }

    fn fetch(&mut self, release: ReleaseRef) {
        // Another download under way is one that nobody wants any more; the shell ends it.
        if self.fetching != Some(release.sha256) && self.fetch_at <= self.now.monotonic {
            self.fetching = Some(release.sha256);
            self.emit(Action::Fetch(release));
        }
    }

    fn staged(&mut self, goal: &Wanted, release: ReleaseRef, probation: Probation) {
        // Ordered back to what was committed here before: the order itself is the hub's word.
        let known = self.record.previous.as_ref().is_some_and(|previous| previous.sha256 == release.sha256);
        let proven = known && goal.allow_lower;
        let waited = self.now.monotonic >= self.offline_since + self.settings.offline_wait;
        if proven || self.confirmed || (!self.online && waited) {
            self.begin_trial(release, probation, 0, proven);
        } else if self.online && self.ask_at <= self.now.monotonic {
            self.ask_at = self.now.monotonic + self.settings.ask_every;
            self.emit(Action::Report);
        }
    }

    fn begin_trial(&mut self, release: ReleaseRef, probation: Probation, crashes: u32, proven: bool) {
        self.probation_ends = self.now.monotonic + Duration::from_secs(probation.timeout_s);
        self.record.candidate = Candidate::Trial { release: release.clone(), probation, crashes, proven };
        self.store();
        self.serve(release);
    }

    fn trial(&mut self, release: &ReleaseRef, probation: &Probation) {
        if self.ordered.as_ref() != Some(release) {
            return;
        }
        let timed_out = self.now.monotonic >= self.probation_ends;
        match judge(probation, &self.evidence, timed_out) {
            Verdict::Passed if self.active => self.commit(),
            Verdict::Open | Verdict::Passed => {}
            Verdict::Failed(reason) => self.undo(reason),
        }
    }

    fn commit(&mut self) {
        let Candidate::Trial { release, .. } = std::mem::take(&mut self.record.candidate) else { return };
        let before = self.record.committed.replace(release.clone());
        // A version that was ordered away is not kept to fall back to.
        self.record.previous = before.filter(|before| before.version < release.version);
        self.record.undone = None;
        self.error = None;
        self.store();
        self.emit(Action::Collect);
    }

    /// Gives the candidate up until a newer assignment.
    fn undo(&mut self, reason: String) {
        let generation = self.record.wanted.as_ref().map_or(Generation(0), |wanted| wanted.generation);
        let candidate = self.record.candidate.release().cloned();
        if let Some(release) = candidate {
            self.record.undone = Some(Undone { release, generation, reason });
        }
        self.withdraw();
    }

    /// Drops the candidate; if it was on trial, the committed package serves again at once.
    fn withdraw(&mut self) {
        let candidate = std::mem::take(&mut self.record.candidate);
        if matches!(candidate, Candidate::Trial { .. }) {
            self.serve_committed();
        }
        self.store();
        self.emit(Action::Collect);
    }

    /// The committed package cannot serve: the previous one takes its place, else the declared fallback.
    fn fall_back(&mut self, reason: String) {
        let Some(broken) = self.record.committed.take() else { return };
        self.record.committed = self.record.previous.take();
        let generation = self.record.wanted.as_ref().map_or(Generation(0), |wanted| wanted.generation);
        match &mut self.record.undone {
            Some(undone) if undone.generation == generation => {
                undone.reason = format!("{}; then version {} could not serve: {reason}", undone.reason, broken.version);
            }
            _ => self.record.undone = Some(Undone { release: broken, generation, reason }),
        }
        self.serve_committed();
        self.store();
    }
}

/// Actions.
impl Updater {
    /// Emits the record; whatever is emitted after this waits until it is durable. Several changes on one input are
    /// one record.
    fn store(&mut self) {
        let same_input = self.out.iter_mut().find_map(|action| match action {
            Action::Persist { ticket, record } if *ticket == self.ticket => Some(record),
            _ => None,
        });
        match (same_input, self.unwritten.back_mut()) {
            (Some(record), Some((_, unwritten))) => {
                **record = self.record.clone();
                unwritten.clone_from(&self.record);
            }
            _ => {
                self.ticket += 1;
                self.unwritten.push_back((self.ticket, self.record.clone()));
                self.out.push(Action::Persist { ticket: self.ticket, record: Box::new(self.record.clone()) });
            }
        }
        self.emit(Action::Report);
    }

    fn emit(&mut self, action: Action) {
        match self.unwritten.back() {
            Some((ticket, _)) => self.held.push_back((*ticket, action)),
            None => self.out.push(action),
        }
    }

    /// Orders a package on trial, once its record is durable.
    fn serve(&mut self, release: ReleaseRef) {
        self.evidence = TrialReport::default();
        self.ordered = Some(release.clone());
        self.active = false;
        self.emit(Action::Serve(Some(release)));
    }

    /// Orders the committed package at once, and takes back an order that still waits for its record.
    fn serve_committed(&mut self) {
        self.held.retain(|(_, action)| !matches!(action, Action::Serve(_)));
        self.evidence = TrialReport::default();
        self.ordered = self.record.committed.clone();
        self.active = false;
        self.out.push(Action::Serve(self.ordered.clone()));
    }

    /// Shows an error in the next report, once per change.
    fn complain(&mut self, reason: String) {
        if self.error.as_ref() != Some(&reason) {
            self.error = Some(reason);
            self.emit(Action::Report);
        }
    }

    fn forget_attempts(&mut self) {
        self.error = None;
        self.damaged = 0;
        self.fetch_backoff.reset();
        self.fetch_at = self.now.monotonic;
    }
}
