//! Scripted stories, and random ones with a crash at every point.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;
use tributary_wire::{Micros, UpdaterState, VersionNumber};

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
    /// Releases whose trial a crash cut short, with the generation: they must not serve again under it.
    crashed: BTreeSet<(u64, Sha256)>,
    /// What was seen committed last, and whether it may become lower: by an assignment that says so, or by a file
    /// that turned out to be broken.
    committed: Option<u32>,
    may_lower: bool,
    /// The last assignment; the shell stores it before it tells the updater, and tells it again after a restart.
    assigned: Option<Input>,
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
            crashed: BTreeSet::new(),
            committed: None,
            may_lower: false,
            assigned: None,
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
        for action in actions {
            match action {
                Action::Persist { ticket, record } => self.persists.push_back((ticket, *record)),
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
    }

    fn assign(&mut self, version: u32, allow_lower: bool, expires_in: i64) {
        self.generation += 1;
        self.may_lower = allow_lower;
        let expires = Micros(self.now.wall.0 + expires_in);
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
            self.tell(Input::ServeFailed { sha256, reason: "broken".into() });
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
            self.tell(Input::Confirmed(Generation(self.generation)));
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
        self.tell(Input::Confirmed(Generation(self.generation)));
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
        self.tell(Input::Confirmed(Generation(self.generation)));
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

#[test]
fn a_good_package_is_fetched_asked_about_tried_and_committed() {
    let mut device = Device::new();
    assert_eq!(device.state(), UpdaterState::Idle);
    device.until_committed(1);
    device.until_committed(2);
    assert_eq!(device.state(), UpdaterState::Committed);
    assert_eq!(device.disk.previous, Some(release(1)));
}

#[test]
fn a_package_that_fails_its_probation_is_undone_and_reported_until_a_newer_generation() {
    let mut device = Device::new();
    device.until_committed(1);
    device.until_trial(2);
    device.evidence(BAD);
    device.serve(true);
    assert_eq!(device.serving, Some(release(1).sha256), "back before the disk has answered");
    device.settle();
    let report = device.updater.report("tract");
    assert_eq!(report.state, UpdaterState::RolledBack);
    let (undone, reason) = report.undone.unwrap();
    assert_eq!(undone.version, VersionNumber(2));
    assert!(reason.contains("5 of 10"), "{reason}");
    device.restart();
    device.settle();
    assert_eq!(device.state(), UpdaterState::RolledBack, "a restart does not forget it");
    device.until_committed(3);
}

#[test]
fn a_restart_during_the_trial_undoes_it() {
    let mut device = Device::new();
    device.until_committed(1);
    device.until_trial(2);
    device.restart();
    device.settle();
    assert_eq!((device.state(), device.committed()), (UpdaterState::RolledBack, Some(1)));
    assert_eq!(device.serving, Some(release(1).sha256));
}

#[test]
fn an_agent_that_is_told_to_stop_during_a_trial_begins_it_anew() {
    let mut device = Device::new();
    device.until_committed(1);
    device.until_trial(2);
    device.tell(Input::Stopping);
    device.persist();
    device.restart();
    device.work();
    assert_eq!((device.state(), device.serving), (UpdaterState::Staged, Some(release(1).sha256)));
    device.settle();
    assert_eq!((device.state(), device.committed()), (UpdaterState::Committed, Some(2)));
}

#[test]
fn a_trial_begun_anew_after_a_stop_is_still_undone_by_a_crash() {
    let mut device = Device::new();
    device.until_committed(1);
    device.until_trial(2);
    device.tell(Input::Stopping);
    device.persist();
    device.restart();
    device.until_trial_again();
    device.restart();
    device.settle();
    assert_eq!((device.state(), device.committed()), (UpdaterState::RolledBack, Some(1)));
}

#[test]
fn a_trial_without_traffic_goes_on_and_its_time_runs_from_the_first_prediction() {
    let mut device = Device::new();
    device.until_trial(1);
    device.advance(10_000);
    assert_eq!(device.updater.next_wake(), None);
    device.evidence(TrialReport { predictions: 1, ..GOOD });
    device.advance(59);
    assert_eq!(device.state(), UpdaterState::Trial);
    device.advance(1);
    device.persist();
    assert_eq!(device.state(), UpdaterState::RolledBack);
    let (_, reason) = device.updater.report("tract").undone.unwrap();
    assert!(reason.contains("timed out after 1 of 10"), "{reason}");
}

#[test]
fn an_online_device_waits_for_the_hub_and_repeats_its_question() {
    let mut device = Device::new();
    device.tell(Input::Online(true));
    device.assign(1, false, 3600 * Micros::SECOND);
    device.persist();
    device.fetch();
    device.persist();
    for _ in 0..5 {
        let before = device.reports;
        device.advance(10);
        assert!(device.updater.asks() && device.reports > before);
    }
    assert_eq!(device.state(), UpdaterState::Staged);
    device.assign(1, false, 3600 * Micros::SECOND);
    device.persist();
    device.persist();
    assert_eq!(device.state(), UpdaterState::Trial, "a newer word about the same release is an answer too");
}

#[test]
fn an_offline_device_goes_on_after_the_declared_wait() {
    let mut device = Device::new();
    device.assign(1, false, 3600 * Micros::SECOND);
    device.persist();
    device.fetch();
    device.persist();
    device.advance(299);
    assert_eq!(device.state(), UpdaterState::Staged);
    device.advance(1);
    device.persist();
    assert_eq!(device.state(), UpdaterState::Trial);
}

#[test]
fn a_stop_that_arrives_while_the_device_asks_keeps_the_package_from_its_trial() {
    let mut device = Device::new();
    device.until_committed(1);
    device.assign(2, false, 3600 * Micros::SECOND);
    device.persist();
    device.fetch();
    device.persist();
    device.assign(1, true, 3600 * Micros::SECOND);
    device.settle();
    assert_eq!((device.state(), device.committed()), (UpdaterState::Committed, Some(1)));
    assert!(!device.files.contains(&release(2).sha256), "and its file is collected");
}

#[test]
fn a_newer_assignment_that_wants_nothing_takes_the_package_away() {
    let mut device = Device::new();
    device.until_committed(1);
    device.unassign();
    assert_eq!(device.serves.back(), Some(&None), "the fallback answers before the disk has");
    device.restart();
    device.settle();
    assert_eq!((device.state(), device.committed(), device.serving), (UpdaterState::Idle, None, None));
    device.until_committed(2);
}

#[test]
fn an_order_back_to_the_previous_package_needs_no_second_trial() {
    let mut device = Device::new();
    device.until_committed(1);
    device.until_committed(2);
    device.assign(1, true, 3600 * Micros::SECOND);
    for _ in 0..8 {
        device.persist();
        device.fetch();
        device.serve(true);
    }
    assert_eq!((device.state(), device.committed()), (UpdaterState::Committed, Some(1)));
    assert_eq!(device.disk.previous, None, "what was ordered away is not kept to fall back to");
}

#[test]
fn a_lower_version_without_leave_and_an_expired_assignment_are_refused_and_named() {
    let mut device = Device::new();
    device.until_committed(2);
    device.assign(1, false, 3600 * Micros::SECOND);
    device.settle();
    assert_eq!(device.committed(), Some(2));
    assert!(device.updater.report("").error.unwrap().contains("below the committed 2"));
    device.assign(3, false, -1);
    device.settle();
    assert_eq!((device.state(), device.committed()), (UpdaterState::Committed, Some(2)));
    assert!(device.updater.report("").error.unwrap().contains("expired"));
}

#[test]
fn a_refused_package_is_undone_a_damaged_one_after_three_downloads_an_unreachable_one_never() {
    let tries = |failure| {
        let mut device = Device::new();
        device.tell(Input::Online(true));
        device.assign(1, false, 36_000 * Micros::SECOND);
        device.persist();
        let mut tries = 0;
        while tries < 10 && device.state() == UpdaterState::Fetching {
            if device.fetches.pop_front().is_some() {
                tries += 1;
                device.tell(Input::FetchFailed { sha256: release(1).sha256, failure, reason: "so".into() });
            }
            device.persist();
            device.advance(300);
        }
        tries
    };
    assert_eq!(tries(FetchFailure::Refused), 1);
    assert_eq!(tries(FetchFailure::Damaged), 3);
    assert_eq!(tries(FetchFailure::Unreachable), 10);
}

#[test]
fn a_committed_package_that_cannot_serve_gives_way_to_the_previous_one_and_then_to_the_fallback() {
    let mut device = Device::new();
    device.until_committed(1);
    device.until_committed(2);
    device.files.clear();
    device.restart();
    while !device.serves.is_empty() || !device.persists.is_empty() {
        device.serve(true);
        device.persist();
    }
    assert_eq!((device.serving, device.committed()), (None, None));
    assert!(device.updater.report("").undone.unwrap().1.contains("broken"));
}

#[test]
fn a_trial_without_enough_traffic_times_out() {
    let mut device = Device::new();
    device.until_committed(1);
    device.until_trial(2);
    device.evidence(TrialReport { predictions: 3, ..GOOD });
    device.advance(60);
    device.persist();
    assert_eq!(device.state(), UpdaterState::RolledBack);
}

#[test]
fn a_full_disk_never_lets_a_trial_begin_and_is_tried_again() {
    let mut device = Device::new();
    device.until_committed(1);
    device.assign(2, false, 3600 * Micros::SECOND);
    device.persists.clear();
    device.tell(Input::PersistFailed);
    assert!(device.fetches.is_empty());
    device.advance(5);
    assert_eq!(device.persists.len(), 1, "the newest record stands for all");
    device.settle();
    assert_eq!(device.committed(), Some(2));
}

#[derive(Debug, Clone)]
enum Step {
    Assign { version: u32, allow_lower: bool, lives: bool },
    Unassign,
    Confirm,
    Online(bool),
    Persist,
    PersistFails,
    Fetch,
    FetchFails(FetchFailure),
    Serve,
    ServeFails,
    Evidence(TrialReport),
    Advance(u64),
    Crash,
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    let failure =
        prop_oneof![Just(FetchFailure::Unreachable), Just(FetchFailure::Damaged), Just(FetchFailure::Refused)];
    prop_oneof![
        3 => (1u32..5, any::<bool>(), prop::bool::weighted(0.9))
            .prop_map(|(version, allow_lower, lives)| Step::Assign { version, allow_lower, lives }),
        1 => Just(Step::Unassign),
        4 => Just(Step::Confirm),
        2 => any::<bool>().prop_map(Step::Online),
        12 => Just(Step::Persist),
        1 => Just(Step::PersistFails),
        6 => Just(Step::Fetch),
        1 => failure.prop_map(Step::FetchFails),
        8 => Just(Step::Serve),
        1 => Just(Step::ServeFails),
        4 => prop_oneof![4 => Just(GOOD), 1 => Just(BAD), 1 => Just(TrialReport::default())].prop_map(Step::Evidence),
        2 => (1u64..400).prop_map(Step::Advance),
        2 => Just(Step::Crash),
        1 => Just(Step::Stop),
    ]
}

impl Device {
    fn step(&mut self, step: Step) {
        match step {
            Step::Assign { version, allow_lower, lives } => {
                self.assign(version, allow_lower, if lives { 86_400 * Micros::SECOND } else { Micros::SECOND });
            }
            Step::Unassign => self.unassign(),
            Step::Confirm => self.tell(Input::Confirmed(Generation(self.generation))),
            Step::Online(online) => self.tell(Input::Online(online)),
            Step::Persist => self.persist(),
            Step::PersistFails => {
                if !self.persists.is_empty() {
                    self.persists.clear();
                    self.tell(Input::PersistFailed);
                }
            }
            Step::Fetch => self.fetch(),
            Step::FetchFails(failure) => {
                if let Some(release) = self.fetches.pop_front() {
                    self.tell(Input::FetchFailed { sha256: release.sha256, failure, reason: "so".into() });
                }
            }
            Step::Serve => self.serve(true),
            Step::ServeFails => self.serve(false),
            Step::Evidence(evidence) => self.evidence(evidence),
            Step::Advance(seconds) => self.advance(seconds),
            Step::Crash => self.restart(),
            Step::Stop => {
                self.tell(Input::Stopping);
                while !self.persists.is_empty() {
                    self.persist();
                }
                self.restart();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The device's own assertions watch every step; afterwards something that works must serve.
    #[test]
    fn whatever_happens_in_whatever_order_something_checked_serves(steps in prop::collection::vec(step(), 1..120)) {
        let mut device = Device::new();
        for step in steps {
            device.step(step);
        }
        device.restart();
        device.settle();
        let committed = device.disk.committed.as_ref().map(|release| release.sha256);
        prop_assert_eq!(device.serving, committed);
        prop_assert_eq!(&device.disk.candidate, &Candidate::None);
        prop_assert!(committed.is_none_or(|sha256| device.files.contains(&sha256)));
    }
}
