//! A hub: the planner that ships, over a record that a transaction replaces as a whole.

use std::collections::BTreeMap;

use cloud_hub_core::lives::{self, Verdict};
use cloud_hub_core::rollout::assignments::{
    Answer, Said, Signed, Wish, answer, is_held, is_unfinished, next_generation,
};
use cloud_hub_core::rollout::{Known, Policy, Restored, Rollout, RolloutState, Step, Target, advance};
use tributary_release::{SigningKey, sign_assignment};
use tributary_wire::{
    Assignment, AuditHead, DeviceId, Generation, Micros, ReleaseRef, Report, Role, Sha256, SignedAssignment,
};

use super::Breakage;
use super::checks::Ledger;
use super::packages::{Kind, Repository, line, package, release};
use super::record::{Course, Heard, RESTORED_WAIT, Record};

/// An assignment on its way out.
pub(super) type Outgoing = (DeviceId, SignedAssignment);

/// When a hub dies in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    /// Nothing of it is stored.
    Before,
    /// All of it is stored, and nothing of it sent.
    After,
}

/// The hub, up or down.
pub(super) struct Hub {
    pub(super) record: Record,
    pub(super) up: bool,
    pub(super) key: SigningKey,
    /// It dies in its next transaction.
    pub(super) dies: Option<Death>,
    pub(super) breakage: Option<Breakage>,
    /// Counts editions of packages, beyond what a backup knows.
    editions: u32,
}

impl Hub {
    pub(super) fn new(key: SigningKey, repository: Repository, breakage: Option<Breakage>) -> Self {
        let record = Record {
            rollouts: BTreeMap::new(),
            wishes: BTreeMap::new(),
            signed: BTreeMap::new(),
            heard: BTreeMap::new(),
            over: BTreeMap::new(),
            releases: BTreeMap::new(),
            repository,
            audit: 0,
            restored: None,
            waits_for: (0, Micros(0)),
            forgotten: BTreeMap::new(),
        };
        Self { record, up: true, key, dies: None, breakage, editions: 0 }
    }

    /// One transaction: all or nothing, even when the hub dies in it; what is to be sent then.
    fn transaction(&mut self, ledger: &mut Ledger, work: impl FnOnce(&mut Transaction<'_>)) -> Vec<Outgoing> {
        let before = self.dies.is_some().then(|| self.record.clone());
        let mut transaction =
            Transaction { record: &mut self.record, key: &self.key, out: Vec::new(), breakage: self.breakage };
        work(&mut transaction);
        let out = transaction.out;
        match self.dies.take() {
            Some(Death::Before) => {
                self.record = before.expect("kept for this");
                self.up = false;
                Vec::new()
            }
            Some(Death::After) => {
                self.up = false;
                ledger.committed(&self.record, &out);
                Vec::new()
            }
            None => {
                ledger.committed(&self.record, &out);
                out
            }
        }
    }

    /// A report came.
    pub(super) fn hears(&mut self, device: &DeviceId, bytes: &[u8], now: Micros, ledger: &mut Ledger) -> Vec<Outgoing> {
        let Ok(report) = Report::decode(bytes) else { return Vec::new() };
        let base = report.base();
        let number = (base.incarnation, base.number);
        let said = (base.generation, base.asks);
        let last = self.record.heard.get(device).map(|heard| heard.number);
        let over = self.record.over.get(&(device.clone(), base.incarnation)).copied();
        let verdict = lives::judge(last, over, number);
        if !verdict.is_news() {
            return Vec::new();
        }
        self.transaction(ledger, |it| {
            if let (Verdict::Begins, Some((life, number))) = (verdict, last) {
                it.record.over.insert((device.clone(), life), number);
            }
            it.record.learn(device, report.base());
            it.record.heard.insert(device.clone(), Heard { report, number, at: now });
            it.respond(device, said, now);
        })
    }

    /// A look at every rollout that may have something to do.
    pub(super) fn look(&mut self, now: Micros, ledger: &mut Ledger) -> Vec<Outgoing> {
        let mut out = Vec::new();
        self.record.wait(now);
        for id in self.record.newest().into_values() {
            if self.up && !matches!(self.record.rollouts[&id].rollout.state, RolloutState::Stopped { .. }) {
                out.extend(self.transaction(ledger, |it| it.advance(id, now)));
            }
        }
        out
    }

    /// Signs a package as the next version of the line.
    pub(super) fn publish(&mut self, kind: Kind, expires: Micros, ledger: &mut Ledger) -> u32 {
        self.editions += 1;
        let version = self.record.next_version();
        let file = package(version, self.editions, kind);
        let release = release(version, &file);
        ledger.published(release.sha256, kind);
        self.record.releases.insert(version, (release, kind));
        self.record.repository.publish(version, file, kind);
        self.record.repository.sign(expires);
        version
    }

    /// Begins a rollout, if none of the role is under way; its number.
    pub(super) fn begin(
        &mut self,
        role: &Role,
        version: u32,
        policy: Policy,
        now: Micros,
        ledger: &mut Ledger,
    ) -> Option<(i64, Vec<Outgoing>)> {
        policy.check().expect("rules that make sense");
        let target = self.record.releases.get(&version)?.0.clone();
        let id = self.record.rollouts.keys().max().map_or(1, |last| last + 1);
        let last = self.record.newest().get(role).copied();
        if last.is_some_and(|last| self.record.rollouts[&last].rollout.clone().supersede(id, now).is_err()) {
            return None;
        }
        let out = self.transaction(ledger, |it| {
            if let Some(last) = last.and_then(|last| it.record.rollouts.get_mut(&last)) {
                last.rollout.supersede(id, now).expect("tried before");
            }
            let mut rollout = Rollout::new(id, line(), role.clone(), target, policy, now);
            rollout.share = if role.is_challenger() { 1_000 } else { 0 };
            let members = it.record.members();
            let baseline = cloud_hub_core::rollout::baseline(&members, &rollout.line, role);
            it.record.rollouts.insert(id, Course { rollout, baseline });
            it.advance(id, now);
        });
        self.record.rollouts.contains_key(&id).then_some((id, out))
    }

    /// Carries out an operator's command and what follows from it; `None` when it does not fit.
    pub(super) fn command(
        &mut self,
        id: i64,
        command: Command,
        now: Micros,
        ledger: &mut Ledger,
    ) -> Option<Vec<Outgoing>> {
        let mut changed = self.record.rollouts.get(&id)?.rollout.clone();
        let holders = self.record.holders(&changed.role);
        match command {
            Command::Pause => changed.pause("asked for", now).ok()?,
            Command::Resume => changed.resume(now).ok()?,
            Command::Abort => changed.abort("asked for", now).ok()?,
            Command::End => changed.end(holders, "asked for", now),
        }
        let mut out = self.transaction(ledger, |it| {
            it.record.rollouts.get_mut(&id).expect("there").rollout = changed;
            it.advance(id, now);
        });
        if command == Command::Resume && self.up {
            // While paused nobody was answered.
            let said = self.record.heard.iter().map(|(device, heard)| {
                let base = heard.report.base();
                (device.clone(), (base.generation, base.asks))
            });
            for (device, said) in said.collect::<Vec<_>>() {
                out.extend(self.transaction(ledger, |it| it.respond(&device, said, now)));
            }
        }
        Some(out)
    }

    /// Goes back to an old backup; versions of metadata go on above what devices have seen, and nothing goes on by itself.
    pub(super) fn restore(&mut self, backup: Record, expires: Micros, now: Micros) {
        let heard = std::mem::replace(&mut self.record, backup);
        let last_rollout = self.record.rollouts.keys().max().copied().unwrap_or(0);
        self.record.restored = Some(Restored { waits: true, last_rollout, since: now, ..Restored::default() });
        self.record.waits_for = (self.record.heard.len(), Micros(now.0 + RESTORED_WAIT));
        for (version, (release, kind)) in heard.releases.iter().filter(|(it, _)| !self.record.releases.contains_key(it))
        {
            if let Some(file) = heard.repository.bytes(&release.sha256) {
                self.record.forgotten.insert(*version, (release.clone(), *kind, file));
            }
        }
        for course in self.record.rollouts.values_mut() {
            // Those that are not running stay as they are.
            let _ = course.rollout.pause("the hub was restored", now);
        }
        let seen = heard.heard.values().filter_map(|heard| heard.report.metadata()).map(|it| it.snapshot).max();
        self.record.repository.above(seen.unwrap_or(0).max(heard.repository.snapshot()), expires);
    }
}

/// What an operator of a restored hub does about packages that it does not know.
impl Hub {
    /// Devices may be moved away from all of them.
    pub(super) fn overrule(&mut self) {
        let Some(restored) = &mut self.record.restored else { return };
        restored.overruled.append(&mut restored.unknown);
    }

    /// Sends one of them again; whether there was one.
    pub(super) fn send_again(&mut self, expires: Micros) -> bool {
        let record = &mut self.record;
        let Some(restored) = &mut record.restored else { return false };
        let unknown = |release: &ReleaseRef| restored.unknown.contains(&(line(), release.sha256));
        let free = |version: &u32| !record.releases.contains_key(version);
        let found = record.forgotten.iter().find(|(version, (release, ..))| free(version) && unknown(release));
        let Some((version, (release, kind, file))) = found.map(|(version, found)| (*version, found.clone())) else {
            return false;
        };
        restored.unknown.remove(&(line(), release.sha256));
        record.repository.publish(version, file, kind);
        record.repository.sign(expires);
        record.releases.insert(version, (release.clone(), kind));
        let runs = |heard: &Heard| {
            heard.report.base().lines.iter().any(|of| of.committed.is_some_and(|it| it.sha256 == release.sha256))
        };
        let who: Vec<_> = record.heard.iter().filter(|(_, heard)| runs(heard)).map(|(id, _)| id.clone()).collect();
        for device in who {
            let report = record.heard[&device].report.base().clone();
            record.follow(&device, &report);
        }
        true
    }
}

/// What an operator may want of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Command {
    Pause,
    Resume,
    Abort,
    End,
}

struct Transaction<'a> {
    record: &'a mut Record,
    key: &'a SigningKey,
    out: Vec<Outgoing>,
    breakage: Option<Breakage>,
}

impl Transaction<'_> {
    fn advance(&mut self, id: i64, now: Micros) {
        let members = self.record.members();
        let Some(course) = self.record.rollouts.get(&id) else { return };
        let Course { mut rollout, mut baseline } = course.clone();
        let (wishes, generations) = (self.record.wished(&rollout.role), self.record.generations());
        let releases: Vec<ReleaseRef> = self.record.releases.values().map(|(release, _)| release.clone()).collect();
        let restored = self.record.restored.clone();
        let known = Known {
            wishes: &wishes,
            generations: &generations,
            releases: &releases,
            restored: restored.as_ref(),
            patches: 0,
        };
        let stepped = advance(&mut rollout, &mut baseline, &members, known, now);
        let Some(Step { plan, .. }) = stepped else { return };
        let course = Course { rollout, baseline };
        self.record.audit += 1;
        for assign in &plan.assign {
            let rollout = &course.rollout;
            let key = (assign.device.clone(), rollout.line.clone(), rollout.role.clone());
            match Wish::of(rollout, assign) {
                Some(mut wish) => {
                    if self.breakage == Some(Breakage::RollbackWithoutLeave) {
                        wish.allow_lower = false;
                    }
                    self.record.wishes.insert(key, wish);
                }
                None => drop(self.record.wishes.remove(&key)),
            }
        }
        self.record.rollouts.insert(id, course);
        for assign in &plan.assign {
            let installs = matches!(assign.target, Target::Install { .. });
            let held = installs && is_held(&self.record.desired(&assign.device), |id| self.record.may_install(id));
            if !held && !self.record.holds(&assign.device) {
                self.sign(&assign.device, now);
            }
        }
    }

    fn sign(&mut self, device: &DeviceId, now: Micros) {
        let last = self.record.generation(device);
        let reported = self.record.heard.get(device).map_or(Generation(0), |heard| heard.report.base().generation);
        let mut generation = next_generation(last, reported);
        if self.breakage == Some(Breakage::GenerationsBegunAnew) {
            generation = Generation(last.0 + 1);
        }
        let audit = AuditHead { number: self.record.audit, hash: Sha256([0; 32]) };
        let snapshot = self.record.repository.snapshot();
        let sayable = self.record.sayable(device, |rollout| self.record.may_install(rollout));
        let assignment = sayable.assignment(device, generation, (audit, snapshot), now);
        let signed = sign_assignment(self.key, &assignment);
        self.record.signed.insert(device.clone(), signed.clone());
        self.out.push((device.clone(), signed));
    }

    fn respond(&mut self, device: &DeviceId, (generation, asks): (Generation, bool), now: Micros) {
        let Some(signed) = self.record.signed.get(device) else { return };
        let assignment = Assignment::decode(&signed.payload).expect("as it was signed");
        let before = Signed { assignment: &assignment, by_present_key: signed.key_id == self.key.id().0 };
        let heard = self.record.heard.get(device);
        let unfinished = heard.is_some_and(|heard| is_unfinished(&assignment, &heard.report));
        let said = Said { generation, asks, unfinished };
        let careless = self.breakage == Some(Breakage::SignsAfterStop);
        let may_install = |rollout: i64| careless || self.record.may_install(rollout);
        let (desired, sayable) = (self.record.desired(device), self.record.sayable(device, may_install));
        match answer((&desired, &sayable), before, said, may_install, now) {
            Answer::Nothing => {}
            _ if self.record.holds(device) => {}
            Answer::Again => self.out.push((device.clone(), signed.clone())),
            Answer::Renew(_) => {
                self.record.audit += 1;
                self.sign(device, now);
            }
        }
    }
}
