//! A device with two roles that can be copied.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use tributary_wire::{Generation, Micros, ReleaseRef, Role, Sha256, TrialReport};

use super::super::super::*;
use super::super::{PROBATION, believed, challenger, line, signed, start_on};
use super::{CUTS, Event, GENERATIONS, WISHES};
use crate::updater::{self, Candidate};

const GOOD: TrialReport = TrialReport { predictions: 10, errors: 0, latency_p99_us: 10, output_mean: 0.5 };
const BAD: TrialReport = TrialReport { errors: 5, ..GOOD };

fn roles() -> [Of; 2] {
    [(line(), Role::primary()), challenger()]
}

/// What a power cut leaves.
#[derive(Debug, Clone, Default)]
struct Disk {
    records: BTreeMap<Of, Record>,
    assignment: Option<(Generation, Vec<u8>)>,
    audit: Option<AuditSeen>,
    files: BTreeSet<Sha256>,
}

#[derive(Debug, Clone)]
pub(super) struct World {
    lines: Lines,
    disk: Disk,
    now: Now,
    online: bool,
    /// What was signed, oldest first, with what it wants.
    signed: Vec<(usize, Vec<u8>)>,
    serving: BTreeMap<Of, Option<Sha256>>,
    fetches: BTreeMap<Of, ReleaseRef>,
    cuts: u8,
    /// Writes until the power goes.
    fuse: Option<u8>,
    /// The highest generation that ever counted.
    highest: Generation,
}

impl World {
    pub(super) fn new() -> Self {
        let now = Now { wall: Micros(1_000), monotonic: Duration::ZERO };
        let mut world = Self {
            lines: start_on(Vec::new(), now).0,
            disk: Disk::default(),
            now,
            online: false,
            signed: Vec::new(),
            serving: BTreeMap::new(),
            fetches: BTreeMap::new(),
            cuts: 0,
            fuse: None,
            highest: Generation(0),
        };
        world.restart();
        world
    }

    pub(super) fn can(&self, event: Event) -> bool {
        match event {
            Event::Assign(_) => (self.signed.len() as u64) < GENERATIONS,
            Event::Again => !self.signed.is_empty(),
            Event::Older => self.signed.len() > 1,
            Event::Online(online) => online != self.online,
            Event::Wait => true,
            Event::Fetch(role) => self.fetches.contains_key(&roles()[role]),
            Event::Evidence(role, _) => self.serving.get(&roles()[role]).is_some_and(Option::is_some),
            Event::Cut(_) => self.cuts < CUTS && self.fuse.is_none(),
        }
    }

    pub(super) fn step(&mut self, event: Event) {
        match event {
            Event::Assign(wish) => {
                let (primary, beside) = WISHES[wish];
                self.signed.push((wish, signed(self.signed.len() as u64 + 1, primary, beside, 5)));
                self.hears(self.signed.len() - 1);
            }
            Event::Again => self.hears(self.signed.len() - 1),
            Event::Older => {
                let before = (self.lines.generation(), format!("{:?}", self.disk.records));
                self.hears(self.signed.len() - 2);
                // One whose successors never became durable is as good as the newest.
                if before.0.0 as usize >= self.signed.len() {
                    let after = (self.lines.generation(), format!("{:?}", self.disk.records));
                    assert_eq!(before, after, "an older assignment changed something");
                }
            }
            Event::Online(online) => {
                self.online = online;
                self.tell(Input::Online(online));
            }
            Event::Wait => {
                self.now.monotonic += Duration::from_secs(400);
                self.tell(Input::Woken);
            }
            Event::Fetch(role) => {
                let of = roles()[role].clone();
                let Some(release) = self.fetches.remove(&of) else { return };
                self.disk.files.insert(release.sha256);
                let input = updater::Input::Fetched { sha256: release.sha256, probation: PROBATION };
                self.tell(Input::Line(of, input));
            }
            Event::Evidence(role, good) => {
                let of = roles()[role].clone();
                let Some(Some(sha256)) = self.serving.get(&of).copied() else { return };
                let evidence = if good { GOOD } else { BAD };
                self.tell(Input::Line(of, updater::Input::Evidence { sha256, evidence }));
            }
            Event::Cut(0) => {
                self.cuts += 1;
                self.restart();
            }
            Event::Cut(writes) => {
                self.cuts += 1;
                self.fuse = Some(writes);
            }
        }
    }

    fn hears(&mut self, number: usize) {
        let signed = self.signed[number].1.clone();
        self.tell(Input::Assigned { signed, believed: believed(5) });
    }

    fn tell(&mut self, input: Input) {
        let actions = self.lines.handle(self.now, input);
        self.perform(actions, true);
    }

    /// Carries out actions as a shell does: one after the other, what they bring about last. Ends where the power goes.
    fn perform(&mut self, actions: Vec<Action>, check: bool) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            let writes = matches!(action, Action::Persist { .. } | Action::Keep { .. } | Action::Retire(_));
            let input = self.act(action);
            if writes && let Some(left) = self.fuse {
                self.fuse = (left > 1).then_some(left - 1);
                if self.fuse.is_none() {
                    return self.restart();
                }
            }
            if let Some(input) = input {
                actions.extend(self.lines.handle(self.now, input));
            }
            if check {
                self.check();
            }
        }
    }

    fn act(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Persist { of, ticket, record } => {
                self.disk.records.insert(of.clone(), *record);
                Some(Input::Line(of, updater::Input::Persisted(ticket)))
            }
            Action::Keep { signed, generation } => {
                let number = self.signed.iter().position(|(_, known)| *known == signed).expect("signed by the hub");
                assert_eq!(generation.0, number as u64 + 1);
                self.disk.assignment = Some((generation, signed));
                Some(Input::Kept)
            }
            Action::Fetch { of, release, .. } => {
                self.fetches.insert(of, release);
                None
            }
            Action::Vouch { of, release } => {
                Some(Input::Vouched { of, sha256: release.sha256, believed: believed(5), chain: Ok(()) })
            }
            Action::Serve { of, package } => {
                let sha256 = package.map(|release| release.sha256);
                assert!(sha256.is_none_or(|sha256| self.disk.files.contains(&sha256)), "{of:?} has no file to serve");
                self.serving.insert(of.clone(), sha256);
                Some(Input::Line(of, updater::Input::Serving(sha256)))
            }
            Action::Begin(of) => {
                let record = self.disk.records.get(&of).cloned().unwrap_or_default();
                Some(Input::Began(of, Box::new(record)))
            }
            Action::Retire(of) => {
                self.disk.records.remove(&of);
                self.serving.remove(&of);
                self.fetches.remove(&of);
                None
            }
            Action::Collect => {
                let needed: BTreeSet<_> = self.lines.references().into_iter().collect();
                self.disk.files.retain(|file| needed.contains(file));
                None
            }
            Action::KeepAudit(seen) => {
                self.disk.audit = Some(seen);
                None
            }
            Action::Refresh(signed) => Some(Input::Refreshed { signed, believed: believed(5) }),
            Action::Raise(_) | Action::Report => None,
        }
    }

    /// The power goes, and comes back.
    fn restart(&mut self) {
        self.serving.clear();
        self.fetches.clear();
        self.online = false;
        let records = self.disk.records.clone().into_iter().collect();
        let (lines, orders) = start_on(records, self.now);
        self.lines = lines;
        self.perform(orders, false);
        // Before anything is recalled, and without any network.
        self.check_serving();
        let (generation, assignment) = self.disk.assignment.clone().unzip();
        let remembered = Remembered { assignment, generation, audit: self.disk.audit };
        let actions = self.lines.recall(self.now, &believed(5), &remembered);
        assert_eq!(self.lines.problem(), None);
        self.perform(actions, true);
        self.check();
    }

    fn check(&mut self) {
        let generation = self.lines.generation();
        assert!(generation >= self.highest, "generation {generation:?} after {:?}", self.highest);
        self.highest = generation;
        let kept = self.disk.assignment.as_ref().map_or(Generation(0), |(generation, _)| *generation);
        assert!(kept >= generation, "generation {generation:?} counts, the disk has {kept:?}");
        for (of, updater) in self.lines.updaters() {
            let told = updater.record().wanted.as_ref().map_or(Generation(0), |wanted| wanted.generation);
            assert!(told <= generation, "{of:?} follows generation {told:?}, {generation:?} counts");
        }
        self.check_serving();
    }

    fn check_serving(&self) {
        for (of, record) in &self.disk.records {
            let Some(committed) = &record.committed else { continue };
            let answers = self.serving.get(of).copied().flatten();
            let trial = match &record.candidate {
                Candidate::Trial { release, .. } => Some(release.sha256),
                _ => None,
            };
            let known = [Some(committed.sha256), trial, record.previous.as_ref().map(|it| it.sha256)];
            assert!(answers.is_some() && known.contains(&answers), "{of:?} is answered by {answers:?}: {record:?}");
        }
    }

    /// Everything works, and the hub gives its word: every wish comes true, and nothing else is left.
    pub(super) fn settle(&mut self) {
        self.fuse = None;
        self.step(Event::Online(true));
        for _ in 0..8 {
            for event in [Event::Again, Event::Fetch(0), Event::Fetch(1), Event::Again] {
                if self.can(event) {
                    self.step(event);
                }
            }
            for role in 0..2 {
                self.step(Event::Evidence(role, true));
            }
            self.step(Event::Wait);
        }
        // The hub's last word counts, unless it wants a lower version without saying that this is meant.
        let Some((wish, _)) = self.signed.last() else { return };
        if self.lines.generation().0 < self.signed.len() as u64 {
            return assert!(self.lines.problem().is_some_and(|problem| problem.contains("lower")));
        }
        let (primary, beside) = WISHES[*wish];
        let wishes = [Some(primary), beside];
        for (of, wish) in roles().into_iter().zip(wishes) {
            let Some(version) = wish else {
                assert!(!self.disk.records.contains_key(&of), "a role that nobody wants is forgotten");
                continue;
            };
            let record = &self.disk.records[&of];
            let has = record.committed.as_ref().map(|release| release.version.0);
            let gave_up = record.undone.as_ref().is_some_and(|undone| undone.release.version.0 == version);
            let lower = has.is_some_and(|has| has > version);
            assert!(has == Some(version) || gave_up || lower, "{of:?} is to have {version}: {record:?}");
        }
    }

    /// What makes two states the same: all but absolute times and the numbers of tickets.
    pub(super) fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let of_updater = |(of, updater): (&Of, &Updater)| {
            let wake = updater.next_wake().map(|wake| wake.saturating_sub(self.now.monotonic));
            format!("{of:?} {:?} {:?} {} {:?}", updater.record(), updater.report(""), updater.asks(), wake)
        };
        let updaters: Vec<_> = self.lines.updaters().map(of_updater).collect();
        let wanted: Vec<_> = self.signed.iter().map(|(wish, _)| wish).collect();
        let kept = self.disk.assignment.as_ref().map(|(generation, _)| generation.0);
        (updaters, wanted, kept, self.lines.generation().0).hash(&mut hasher);
        (format!("{:?} {:?}", self.disk.records, self.fetches), &self.serving, &self.disk.files).hash(&mut hasher);
        (self.online, self.cuts, self.fuse).hash(&mut hasher);
        hasher.finish()
    }
}
