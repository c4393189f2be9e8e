//! A device with two roles that can be copied.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use tributary_wire::{Generation, Micros, ReleaseRef, Role, Sha256, TrialReport};

use super::super::super::*;
use super::super::{PROBATION, believed, challenger, line, sign, start_on};
use super::{CUTS, Event, GENERATIONS, WISHES};
use crate::updater;

const GOOD: TrialReport = TrialReport { predictions: 10, errors: 0, latency_p99_us: 10, output_mean: 0.5 };
const BAD: TrialReport = TrialReport { errors: 5, ..GOOD };

pub(super) fn roles() -> [Of; 2] {
    [(line(), Role::primary()), challenger()]
}

/// What a power cut leaves.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    pub(super) records: BTreeMap<Of, Record>,
    pub(super) assignment: Option<Vec<u8>>,
    /// Written with it, and left when it rots.
    pub(super) generation: Option<Generation>,
    audit: Option<AuditSeen>,
    files: BTreeSet<Sha256>,
}

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) lines: Lines,
    pub(super) disk: Disk,
    now: Now,
    online: bool,
    /// What was signed, oldest first, with what it wants.
    pub(super) signed: Vec<(usize, Vec<u8>)>,
    pub(super) serving: BTreeMap<Of, Option<Sha256>>,
    fetches: BTreeMap<Of, ReleaseRef>,
    cuts: u8,
    /// Writes until the power goes.
    pub(super) fuse: Option<u8>,
    /// The highest generation that ever counted.
    pub(super) highest: Generation,
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
            Event::Rot => self.cuts < CUTS && self.fuse.is_none() && self.disk.assignment.is_some(),
        }
    }

    pub(super) fn step(&mut self, event: Event) {
        match event {
            Event::Assign(wish) => {
                let (primary, beside) = WISHES[wish];
                let roles = roles().map(|(_, role)| role).into_iter().zip([primary, beside]);
                let wanted = roles.filter_map(|(role, version)| Some((role, version?))).collect();
                self.signed.push((wish, sign(self.signed.len() as u64 + 1, wanted, 5)));
                self.hears(self.signed.len() - 1);
            }
            Event::Again => self.hears(self.signed.len() - 1),
            Event::Older => {
                let before = (self.lines.generation(), format!("{:?}", self.disk.records));
                self.hears(self.signed.len() - 2);
                // One whose successors never became durable is as good as the newest.
                if self.kept().0 as usize >= self.signed.len() {
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
            Event::Rot => {
                self.cuts += 1;
                self.disk.assignment = None;
                self.restart();
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
                (self.disk.assignment, self.disk.generation) = (Some(signed), Some(generation));
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
        let Disk { assignment, generation, audit, .. } = self.disk.clone();
        let rotten = generation.is_some() && assignment.is_none();
        let remembered = Remembered { assignment, generation, audit };
        let actions = self.lines.recall(self.now, &believed(5), &remembered);
        assert_eq!(self.lines.problem().is_some(), rotten, "{:?}", self.lines.problem());
        self.perform(actions, true);
        self.check();
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
        let kept = (self.kept().0, self.disk.assignment.is_some());
        (updaters, wanted, kept, self.lines.generation().0).hash(&mut hasher);
        (format!("{:?} {:?}", self.disk.records, self.fetches), &self.serving, &self.disk.files).hash(&mut hasher);
        (self.online, self.cuts, self.fuse).hash(&mut hasher);
        hasher.finish()
    }
}
