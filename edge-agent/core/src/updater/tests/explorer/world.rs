//! A device that can be copied.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::super::*;
use super::event::Event;
use super::key;
use super::rules::Rules;

const HOUR: i64 = 3600 * Micros::SECOND;

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) updater: Updater,
    pub(super) now: Now,
    pub(super) generation: u64,
    pub(super) disk: Record,
    pub(super) files: BTreeSet<Sha256>,
    pub(super) serving: Option<Sha256>,
    pub(super) persists: VecDeque<(u64, Record)>,
    pub(super) fetches: VecDeque<ReleaseRef>,
    pub(super) serves: VecDeque<Option<ReleaseRef>>,
    /// A question to the stored metadata; one that comes later is the one that counts.
    pub(super) vouches: Option<Sha256>,
    pub(super) assigned: Option<Input>,
    pub(super) accidents: u8,
    /// What must hold, with the history that it needs.
    pub(super) rules: Rules,
}

impl World {
    pub(super) fn new() -> Self {
        let now = Now { wall: Micros(1_000_000), monotonic: Duration::ZERO };
        let (updater, actions) = start(Record::default(), now);
        let mut world = Self {
            updater,
            now,
            generation: 0,
            disk: Record::default(),
            files: BTreeSet::new(),
            serving: None,
            persists: VecDeque::new(),
            fetches: VecDeque::new(),
            serves: VecDeque::new(),
            vouches: None,
            assigned: None,
            accidents: 0,
            rules: Rules::default(),
        };
        world.perform(actions);
        world
    }

    /// One on which these versions were committed, one after the other.
    pub(super) fn committed(versions: &[u32]) -> Self {
        let mut world = Self::new();
        for version in versions {
            world.step(Event::Assign { version: *version, allow_lower: false });
            world.settle();
            assert_eq!(world.disk.committed, Some(release(*version)));
        }
        // What comes now is counted anew.
        world.accidents = 0;
        world.rules.first = world.generation;
        world
    }

    pub(super) fn step(&mut self, event: Event) {
        let before = self.rules.before(self);
        match event {
            Event::Assign { version, allow_lower } => {
                self.generation += 1;
                let (generation, expires) = (Generation(self.generation), Micros(self.now.wall.0 + HOUR));
                let wanted = Wanted { generation, expires, release: release(version), allow_lower };
                self.assign(Input::Assigned(wanted));
            }
            Event::AssignOlder => {
                let wanted = self.updater.record.wanted.clone().expect("asked before");
                let older = Wanted { generation: Generation(wanted.generation.0 - 1), release: release(1), ..wanted };
                self.tell(Input::Assigned(older));
            }
            Event::Unassign => {
                self.generation += 1;
                self.assign(Input::Unassigned(Generation(self.generation)));
            }
            Event::Confirm => self.confirm(self.generation),
            Event::ConfirmOlder => self.confirm(self.generation - 1),
            Event::Online(online) => self.tell(Input::Online(online)),
            Event::Persist => self.persist(),
            Event::PersistFails => {
                self.accidents += 1;
                self.persists.pop_front();
                self.tell(Input::PersistFailed);
            }
            Event::PersistAndCrash => {
                let (_, record) = self.persists.pop_front().expect("asked before");
                self.write(record);
                self.crash();
            }
            Event::Fetch => self.fetch(),
            Event::FetchFails(way) => self.fetch_fails(way),
            Event::Vouch => self.vouch(Ok(())),
            Event::Doubt(way) => {
                self.accidents += 1;
                let doubts = [Doubt::TakenBack, Doubt::Unclear, Doubt::Unordered];
                self.vouch(Err(doubts[usize::from(way)]("so".into())));
            }
            Event::Serve => self.serve(true),
            Event::ServeFails => {
                self.accidents += 1;
                self.serve(false);
            }
            Event::Evidence(way) => {
                self.evidence([GOOD, BAD, TrialReport { predictions: 3, ..GOOD }][usize::from(way)])
            }
            Event::Wake => {
                let wake = self.updater.next_wake().expect("asked before");
                self.advance(wake.saturating_sub(self.now.monotonic));
            }
            Event::Expire => self.advance(Duration::from_secs(3601)),
            Event::Crash => self.crash(),
            Event::Stop => {
                self.accidents += 1;
                self.tell(Input::Stopping);
                while !self.persists.is_empty() {
                    self.persist();
                }
                self.restart();
            }
            Event::Rot => {
                self.accidents += 1;
                let committed = self.disk.committed.as_ref().expect("asked before").sha256;
                self.files.remove(&committed);
            }
        }
        Rules::after(self, event, before);
    }

    fn assign(&mut self, input: Input) {
        self.assigned = Some(input.clone());
        self.tell(input);
    }

    pub(super) fn confirm(&mut self, generation: u64) {
        let expires = Micros(self.now.wall.0 + HOUR);
        self.tell(Input::Confirmed { generation: Generation(generation), expires });
    }

    pub(super) fn tell(&mut self, input: Input) {
        let actions = self.updater.handle(self.now, input);
        self.perform(actions);
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Persist { ticket, record } => self.persists.push_back((ticket, *record)),
                // A download that begins ends the one before it.
                Action::Fetch(release) => self.fetches = VecDeque::from([release]),
                Action::Vouch(release) => self.vouches = Some(release.sha256),
                // An order that a newer one has replaced is not carried out.
                Action::Serve(package) => self.serves = VecDeque::from([package]),
                Action::Report => {}
                Action::Collect => {
                    let needed: BTreeSet<_> = self.updater.references().into_iter().collect();
                    self.files.retain(|file| needed.contains(file));
                }
            }
        }
    }

    pub(super) fn persist(&mut self) {
        let Some((ticket, record)) = self.persists.pop_front() else { return };
        self.write(record);
        self.tell(Input::Persisted(ticket));
    }

    fn write(&mut self, record: Record) {
        self.disk = record;
        self.rules.written(&self.disk);
    }

    pub(super) fn fetch(&mut self) {
        let Some(release) = self.fetches.pop_front() else { return };
        self.files.insert(release.sha256);
        self.rules.verified.insert(release.sha256);
        self.tell(Input::Fetched { sha256: release.sha256, probation: PROBATION });
    }

    fn fetch_fails(&mut self, way: u8) {
        self.accidents += 1;
        let Some(release) = self.fetches.pop_front() else { return };
        let unfit = FetchFailure::Unfit(vec!["it needs more".into()]);
        let failures = [FetchFailure::Unreachable, FetchFailure::Damaged, FetchFailure::Refused, unfit];
        let failure = failures[usize::from(way)].clone();
        self.tell(Input::FetchFailed { sha256: release.sha256, failure, reason: "so".into() });
    }

    pub(super) fn vouch(&mut self, word: Result<(), Doubt>) {
        if let Some(sha256) = self.vouches.take() {
            self.tell(Input::Vouched { sha256, word });
        }
    }

    pub(super) fn serve(&mut self, works: bool) {
        let Some(package) = self.serves.pop_back() else { return };
        let Some(release) = package else {
            self.serving = None;
            return self.tell(Input::Serving(None));
        };
        let sha256 = release.sha256;
        let is_here = self.files.contains(&sha256);
        if !works || !is_here {
            let failure = if is_here { ServeFailure::Refused } else { ServeFailure::Damaged };
            self.rules.failed.insert(sha256);
            return self.tell(Input::ServeFailed { sha256, failure, reason: "broken".into() });
        }
        self.rules.serves(&self.disk, sha256);
        self.serving = Some(sha256);
        self.tell(Input::Serving(Some(sha256)));
    }

    pub(super) fn evidence(&mut self, evidence: TrialReport) {
        let Some(sha256) = self.serving else { return };
        if evidence == GOOD {
            self.rules.passed.insert(sha256);
        }
        self.tell(Input::Evidence { sha256, evidence });
    }

    pub(super) fn advance(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.wall.0 += time.as_micros() as i64;
        self.tell(Input::Woken);
    }

    fn crash(&mut self) {
        self.accidents += 1;
        self.rules.crashed(&self.disk);
        self.restart();
    }

    pub(super) fn restart(&mut self) {
        self.serving = None;
        self.persists.clear();
        self.fetches.clear();
        self.serves.clear();
        self.vouches = None;
        let (updater, actions) = start(self.disk.clone(), self.now);
        self.updater = updater;
        self.perform(actions);
        Rules::restarted(self);
        // The shell stores an assignment before it tells the updater, and tells it again after a restart.
        if let Some(input) = self.assigned.clone() {
            self.tell(input);
        }
    }

    /// What makes two states the same.
    pub(super) fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        key::put(self, &mut hasher);
        self.accidents.hash(&mut hasher);
        self.assigned.is_some().hash(&mut hasher);
        hasher.finish()
    }
}
