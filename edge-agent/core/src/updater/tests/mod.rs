//! A device around one updater, and what may happen to it: as a story, at random, and in every order.

mod stories;
mod damage;
mod order;
mod record;
mod vouching;
mod random;
mod explorer;

use std::collections::{BTreeSet, VecDeque};

use tributary_release::Probation;
use tributary_wire::{Generation, Micros, UpdaterState, VersionNumber};

use super::*;

const PROBATION: Probation = Probation {
    min_predictions: 10,
    max_error_share: 0.1,
    max_latency_p99_us: 1000,
    output_mean_low: 0.0,
    output_mean_high: 1.0,
    timeout_s: 60,
};
const GOOD: TrialReport = TrialReport { predictions: 10, errors: 0, latency_p99_us: 10, output_mean: 0.5 };
const BAD: TrialReport = TrialReport { errors: 5, ..GOOD };

fn release(version: u32) -> ReleaseRef {
    ReleaseRef { version: VersionNumber(version), length: 1, sha256: Sha256([version as u8; 32]) }
}

/// A device around one updater: its disk, its package files, what serves. A crash keeps only disk and files.
struct Device {
    updater: Updater,
    now: Now,
    generation: u64,
    disk: Record,
    files: BTreeSet<Sha256>,
    serving: Option<Sha256>,
    persists: VecDeque<(u64, Record)>,
    fetches: VecDeque<ReleaseRef>,
    serves: VecDeque<Option<ReleaseRef>>,
    reports: usize,
    /// What speaks against a trial whenever that is asked.
    doubt: Option<Doubt>,
    /// Releases whose trial a crash cut short, with the generation: they must not serve again under it.
    crashed: BTreeSet<(u64, Sha256)>,
    /// What was seen committed last, and whether it may become lower: by an assignment that says so, or by a file
    /// that turned out to be broken.
    committed: Option<u32>,
    may_lower: bool,
    /// The last assignment; the shell stores it before it tells the updater, and tells it again after a restart.
    assigned: Option<Input>,
    /// Of the newest form in which it was signed.
    expires: Micros,
}

impl Device {
    fn new() -> Self {
        let now = Now { wall: Micros(1_000_000), monotonic: Duration::ZERO };
        let mut device = Self {
            updater: start(Record::default(), now).0,
            now,
            generation: 0,
            disk: Record::default(),
            files: BTreeSet::new(),
            serving: None,
            persists: VecDeque::new(),
            fetches: VecDeque::new(),
            serves: VecDeque::new(),
            reports: 0,
            doubt: None,
            crashed: BTreeSet::new(),
            committed: None,
            may_lower: false,
            assigned: None,
            expires: Micros(0),
        };
        device.restart();
        device
    }

    fn restart(&mut self) {
        self.serving = None;
        self.persists.clear();
        self.fetches.clear();
        self.serves.clear();
        if let Candidate::Trial { release, proven: false, .. } = &self.disk.candidate {
            let generation = self.disk.wanted.as_ref().map_or(0, |wanted| wanted.generation.0);
            self.crashed.insert((generation, release.sha256));
        }
        let (updater, actions) = start(self.disk.clone(), self.now);
        self.updater = updater;
        self.committed = self.committed();
        self.perform(actions);
        if let Some(input) = self.assigned.clone() {
            self.tell(input);
        }
    }

    fn tell(&mut self, input: Input) {
        let actions = self.updater.handle(self.now, input);
        self.perform(actions);
    }

    fn perform(&mut self, actions: Vec<Action>) {
        let mut asked = Vec::new();
        for action in actions {
            match action {
                Action::Persist { ticket, record } => self.persists.push_back((ticket, *record)),
                Action::Vouch(release) => asked.push(release.sha256),
                Action::Fetch(release) => self.fetches.push_back(release),
                Action::Serve(package) => self.serves.push_back(package),
                Action::Report => self.reports += 1,
                Action::Collect => {
                    let needed: BTreeSet<_> = self.updater.references().into_iter().collect();
                    self.files.retain(|file| needed.contains(file));
                }
            }
        }
        let committed = self.updater.record().committed.as_ref().map(|release| release.version.0);
        assert!(committed >= self.committed || self.may_lower, "moved back without being told");
        self.committed = committed;
        for sha256 in asked {
            let word = self.doubt.clone().map_or(Ok(()), Err);
            self.tell(Input::Vouched { sha256, word });
        }
    }

    fn assign(&mut self, version: u32, allow_lower: bool, expires_in: i64) {
        self.generation += 1;
        self.may_lower = allow_lower;
        let expires = Micros(self.now.wall.0 + expires_in);
        self.expires = expires;
        let generation = Generation(self.generation);
        let input = Input::Assigned(Wanted { generation, expires, release: release(version), allow_lower });
        self.assigned = Some(input.clone());
        self.tell(input);
    }

    fn unassign(&mut self) {
        self.generation += 1;
        self.may_lower = true;
        self.assigned = Some(Input::Unassigned(Generation(self.generation)));
        self.tell(Input::Unassigned(Generation(self.generation)));
    }

    fn persist(&mut self) {
        if let Some((ticket, record)) = self.persists.pop_front() {
            self.disk = record;
            self.tell(Input::Persisted(ticket));
        }
    }

    fn fetch(&mut self) {
        if let Some(release) = self.fetches.pop_front() {
            self.files.insert(release.sha256);
            self.tell(Input::Fetched { sha256: release.sha256, probation: PROBATION });
        }
    }

    fn serve(&mut self, works: bool) {
        // An order that a newer one has replaced is not carried out.
        let Some(package) = self.serves.drain(..).next_back() else { return };
        let Some(release) = package else {
            self.serving = None;
            self.tell(Input::Serving(None));
            return;
        };
        let sha256 = release.sha256;
        if !works || !self.files.contains(&sha256) {
            self.may_lower = true;
            let failure = if works { ServeFailure::Damaged } else { ServeFailure::Refused };
            self.tell(Input::ServeFailed { sha256, failure, reason: "broken".into() });
            return;
        }
        // Whatever serves must be found by a restart at this very moment.
        assert!(
            self.disk.references().any(|known| known == sha256),
            "{release:?} serves, the disk says {:?}",
            self.disk
        );
        let trial = matches!(&self.disk.candidate, Candidate::Trial { release, .. } if release.sha256 == sha256);
        if trial {
            let generation = self.disk.wanted.as_ref().map_or(0, |wanted| wanted.generation.0);
            assert!(!self.crashed.contains(&(generation, sha256)), "tried again after it had crashed");
        }
        self.serving = Some(sha256);
        self.tell(Input::Serving(Some(sha256)));
    }

    fn confirm(&mut self) {
        self.tell(Input::Confirmed { generation: Generation(self.generation), expires: self.expires });
    }

    fn evidence(&mut self, evidence: TrialReport) {
        if let Some(sha256) = self.serving {
            self.tell(Input::Evidence { sha256, evidence });
        }
    }

    fn advance(&mut self, seconds: u64) {
        self.now.monotonic += Duration::from_secs(seconds);
        self.now.wall.0 += seconds as i64 * Micros::SECOND;
        self.tell(Input::Woken);
    }

    fn work(&mut self) {
        while !(self.persists.is_empty() && self.fetches.is_empty() && self.serves.is_empty()) {
            self.persist();
            self.fetch();
            self.serve(true);
        }
    }

    /// Everything works, nobody says anything new, until nothing changes any more.
    fn settle(&mut self) {
        self.tell(Input::Online(true));
        for _ in 0..40 {
            self.work();
            self.confirm();
            self.work();
            self.evidence(GOOD);
            self.work();
            if let Some(wake) = self.updater.next_wake() {
                let seconds = wake.saturating_sub(self.now.monotonic).as_secs().min(400);
                self.advance(seconds.max(1));
            }
        }
    }

    fn state(&self) -> UpdaterState {
        self.updater.report("tract").state
    }

    fn committed(&self) -> Option<u32> {
        self.disk.committed.as_ref().map(|release| release.version.0)
    }

    /// Brings it to a trial of `version`.
    fn until_trial(&mut self, version: u32) {
        self.tell(Input::Online(true));
        self.assign(version, false, 3600 * Micros::SECOND);
        self.persist();
        self.fetch();
        self.persist();
        assert_eq!(self.state(), UpdaterState::Staged);
        self.confirm();
        self.persist();
        while !self.serves.is_empty() {
            self.serve(true);
        }
        assert_eq!(self.state(), UpdaterState::Trial);
        assert_eq!(self.serving, Some(release(version).sha256));
    }

    /// Brings a staged package to its trial.
    fn until_trial_again(&mut self) {
        self.work();
        self.tell(Input::Online(true));
        self.confirm();
        self.work();
        assert_eq!(self.state(), UpdaterState::Trial);
    }

    fn until_committed(&mut self, version: u32) {
        self.until_trial(version);
        self.evidence(GOOD);
        self.persist();
        assert_eq!(self.committed(), Some(version));
    }
}

fn start(record: Record, now: Now) -> (Updater, Vec<Action>) {
    let line = LineName::new("card-fraud").unwrap();
    Updater::recover(line, Role::primary(), UpdaterSettings::default(), record, now, 1)
}
