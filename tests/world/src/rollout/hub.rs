//! A hub: the planner that ships, over a record that a transaction replaces as a whole.

use std::collections::BTreeMap;

use cloud_hub_core::lives::{self, Verdict};
use cloud_hub_core::rollout::assignments::{Answer, Desired, Said, Signed, Wish, answer, is_held, next_generation};
use cloud_hub_core::rollout::{
    Counters, Known, Member, Policy, Restored, Rollout, RolloutState, Step, Target, advance,
};
use tributary_release::{SigningKey, sign_assignment};
use tributary_wire::{
    Assignment, AuditHead, DeviceId, Generation, Incarnation, LineName, Micros, ReleaseRef, Report, Role, Sha256,
    SignedAssignment,
};

use super::Breakage;
use super::checks::Ledger;
use super::packages::{Kind, Repository, line, package, release};

/// One rollout with what belongs to its row.
#[derive(Debug, Clone)]
pub(super) struct Course {
    pub(super) rollout: Rollout,
    baseline: BTreeMap<DeviceId, Counters>,
}

/// A device's last report.
#[derive(Debug, Clone)]
struct Heard {
    report: Report,
    number: (Incarnation, u64),
    at: Micros,
}

/// Everything that the hub has stored, and that a backup holds.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) rollouts: BTreeMap<i64, Course>,
    wishes: BTreeMap<(DeviceId, LineName, Role), Wish>,
    signed: BTreeMap<DeviceId, SignedAssignment>,
    heard: BTreeMap<DeviceId, Heard>,
    /// Lives of devices' states that are over, with the last number heard of each.
    over: BTreeMap<(DeviceId, Incarnation), u64>,
    pub(super) releases: BTreeMap<u32, (ReleaseRef, Kind)>,
    pub(super) repository: Repository,
    /// Entries of the audit log, as far as assignments carry them.
    audit: u64,
    /// Set on a hub that was restored from a backup.
    restored: Option<Restored>,
}

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
        let said = Said { generation: base.generation, asks: base.asks };
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
            it.record.learn(device, &report);
            it.record.heard.insert(device.clone(), Heard { report, number, at: now });
            it.respond(device, said, now);
        })
    }

    /// A look at every rollout that may have something to do.
    pub(super) fn look(&mut self, now: Micros, ledger: &mut Ledger) -> Vec<Outgoing> {
        let mut out = Vec::new();
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
            // Whoever rolls out has decided that devices may be moved away from what the hub has forgotten.
            it.record.restored.iter_mut().for_each(|restored| restored.unknown.clear());
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
                (device.clone(), Said { generation: base.generation, asks: base.asks })
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
        self.record.restored = Some(Restored { last_rollout, ..Restored::default() });
        for course in self.record.rollouts.values_mut() {
            // Those that are not running stay as they are.
            let _ = course.rollout.pause("the hub was restored", now);
        }
        let seen = heard.heard.values().filter_map(|heard| heard.report.metadata()).map(|it| it.snapshot).max();
        self.record.repository.above(seen.unwrap_or(0).max(heard.repository.snapshot()), expires);
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
            if !held {
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
        let assignment = self.record.desired(device).assignment(device, generation, (audit, snapshot), now);
        let signed = sign_assignment(self.key, &assignment);
        self.record.signed.insert(device.clone(), signed.clone());
        self.out.push((device.clone(), signed));
    }

    fn respond(&mut self, device: &DeviceId, said: Said, now: Micros) {
        let Some(signed) = self.record.signed.get(device) else { return };
        let assignment = Assignment::decode(&signed.payload).expect("as it was signed");
        let before = Signed { assignment: &assignment, by_present_key: signed.key_id == self.key.id().0 };
        let careless = self.breakage == Some(Breakage::SignsAfterStop);
        let may_install = |rollout: i64| careless || self.record.may_install(rollout);
        match answer(&self.record.desired(device), before, said, may_install, now) {
            Answer::Nothing => {}
            _ if self.record.leaves_alone(device) => {}
            Answer::Again => self.out.push((device.clone(), signed.clone())),
            Answer::Renew(_) => {
                self.record.audit += 1;
                self.sign(device, now);
            }
        }
    }
}

impl Record {
    fn members(&self) -> Vec<Member> {
        let member = |(device, heard): (&DeviceId, &Heard)| {
            Member::new(device.clone(), BTreeMap::new(), heard.at, Some(&heard.report))
        };
        self.heard.iter().map(member).collect()
    }

    /// The rollout that answers for each role.
    pub(super) fn newest(&self) -> BTreeMap<Role, i64> {
        self.rollouts.iter().map(|(id, course)| (course.rollout.role.clone(), *id)).collect()
    }

    fn wished(&self, role: &Role) -> BTreeMap<DeviceId, ReleaseRef> {
        let of_role = self.wishes.iter().filter(|((_, _, it), _)| it == role);
        of_role.map(|((device, ..), wish)| (device.clone(), wish.release.clone())).collect()
    }

    fn holders(&self, role: &Role) -> Vec<DeviceId> {
        self.wished(role).into_keys().collect()
    }

    fn may_install(&self, rollout: i64) -> bool {
        self.rollouts.get(&rollout).is_some_and(|course| course.rollout.state.allows_install())
    }

    /// What a device should run.
    pub(super) fn desired(&self, device: &DeviceId) -> Desired {
        let reads = self.heard.get(device).map_or(1, |heard| heard.report.base().reads);
        let own = self.wishes.iter().filter(|((it, ..), _)| it == device);
        Desired {
            reads,
            wishes: own.map(|(_, wish)| wish.clone()).collect(),
            flags: Vec::new(),
            sampling: None,
            taken_back: Micros(0),
        }
    }

    /// The newest generation signed for a device.
    pub(super) fn generation(&self, device: &DeviceId) -> Generation {
        let signed = self.signed.get(device).and_then(|signed| Assignment::decode(&signed.payload).ok());
        signed.map_or(Generation(0), |assignment| assignment.desired().generation)
    }

    fn generations(&self) -> BTreeMap<DeviceId, Generation> {
        self.signed.keys().map(|device| (device.clone(), self.generation(device))).collect()
    }

    /// Above all that the hub knows, and all that devices have from before a restore.
    fn next_version(&self) -> u32 {
        let lines = self.heard.values().flat_map(|heard| &heard.report.base().lines);
        let had = lines.flat_map(|line| [line.committed, line.previous, line.candidate]).flatten();
        let last = self.releases.keys().copied().chain(had.map(|package| package.version.0)).max();
        last.map_or(1, |last| last + 1)
    }

    /// A restored hub learns from a report what it has forgotten.
    fn learn(&mut self, device: &DeviceId, report: &Report) {
        let Some(restored) = &mut self.restored else { return };
        if !restored.reported.insert(device.clone()) {
            return;
        }
        for package in report.base().lines.iter().filter_map(|line| line.committed) {
            if !self.releases.values().any(|(release, _)| release.sha256 == package.sha256) {
                restored.unknown.insert((line(), package.sha256));
            }
        }
    }

    /// Whether a device runs what a restored hub has forgotten, and nobody has decided.
    fn leaves_alone(&self, device: &DeviceId) -> bool {
        let (Some(restored), Some(heard)) = (&self.restored, self.heard.get(device)) else { return false };
        heard.report.base().lines.iter().any(|of| {
            let of_it = (device.clone(), of.line.clone(), of.role.clone());
            let moved = self.wishes.get(&of_it).is_some_and(|wish| wish.rollout > restored.last_rollout);
            !moved && !restored.may_assign(device, &of.line, of.committed.as_ref())
        })
    }

    /// Devices that were heard of.
    pub(super) fn known(&self) -> usize {
        self.heard.len()
    }

    /// Who says now that it cannot run a release.
    pub(super) fn unfit(&self) -> impl Iterator<Item = (DeviceId, Sha256)> {
        let of = |(device, heard): (&DeviceId, &Heard)| {
            let unfit = heard.report.unfit().iter();
            unfit.map(|unfit| (device.clone(), unfit.package.sha256)).collect::<Vec<_>>()
        };
        self.heard.iter().flat_map(of)
    }
}
