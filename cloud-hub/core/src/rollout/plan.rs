//! The planner.

use std::collections::{BTreeMap, BTreeSet};

use tributary_wire::{DeviceId, Micros, PackageRef, ReleaseRef, UpdaterState};

use super::{Evidence, Gate, Rollout, RolloutState, gate};

/// What the hub knows of a device, for the rollout's line and role.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceStatus {
    /// Which device.
    pub device: DeviceId,
    /// When it last said anything.
    pub last_seen: Option<Micros>,
    /// Whether it has reported the newest generation that was signed for it.
    pub up_to_date: bool,
    /// What the hub last assigned to it; where it cannot run that or gave it up, and where nothing was assigned, what it
    /// was found to run.
    pub had: Option<ReleaseRef>,
    /// The package that it reports as committed.
    pub committed: Option<PackageRef>,
    /// What it ran before that, if it is one of the line's releases.
    pub previous: Option<ReleaseRef>,
    /// The package that it reports as fetched, staged or tried.
    pub candidate: Option<PackageRef>,
    /// Where its updater stands.
    pub state: UpdaterState,
    /// The release that it tried and undid, with its reason.
    pub undone: Option<(PackageRef, String)>,
    /// A release that it says it cannot run, and what it lacks. It is not eligible for that one; nothing has failed.
    pub unfit: Option<(PackageRef, String)>,
}

/// What a device is assigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The rollout's release.
    Install {
        /// What it had until now.
        before: Option<ReleaseRef>,
    },
    /// What it had before, as a newer assignment that may name a lower version. `None`: the line is no longer assigned.
    Rollback {
        /// Where to.
        to: Option<ReleaseRef>,
    },
}

/// One assignment to sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assign {
    /// For whom.
    pub device: DeviceId,
    /// In which wave it is, or was.
    pub wave: usize,
    /// What.
    pub target: Target,
}

/// What to store, sign and say next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where the rollout stands then.
    pub next: RolloutState,
    /// What to sign, after `next` is stored.
    pub assign: Vec<Assign>,
    /// Why: one sentence per change, or per thing that is waited for.
    pub reasons: Vec<String>,
}

/// Decides the next step. Deterministic: the order of devices follows from the rollout's number alone.
pub fn plan(rollout: &Rollout, devices: &[DeviceStatus], evidence: &Evidence, now: Micros) -> Plan {
    let view = View::new(rollout, devices, now);
    match &rollout.state {
        RolloutState::Running { wave, since } => view.running(*wave, *since, evidence),
        RolloutState::Paused { .. } => match view.reason_to_stop(evidence) {
            Some(reason) => view.stop(reason),
            None => view.stay(vec!["paused: waiting for an operator".to_owned()]),
        },
        RolloutState::Stopping { since, reason } => view.stopping(*since, reason),
        RolloutState::Stopped { .. } => view.stay(Vec::new()),
        RolloutState::Completed { .. } => view.completed(),
    }
}

struct View<'a> {
    rollout: &'a Rollout,
    devices: BTreeMap<&'a DeviceId, &'a DeviceStatus>,
    now: Micros,
}

impl<'a> View<'a> {
    fn new(rollout: &'a Rollout, devices: &'a [DeviceStatus], now: Micros) -> Self {
        Self { rollout, devices: devices.iter().map(|status| (&status.device, status)).collect(), now }
    }

    fn is_target(&self, package: &PackageRef) -> bool {
        package.sha256 == self.rollout.target.sha256
    }

    fn reachable(&self, device: &DeviceId) -> bool {
        let limit =
            i64::try_from(self.rollout.policy.reachable_within_s).unwrap_or(i64::MAX).saturating_mul(Micros::SECOND);
        let seen = self.devices.get(device).and_then(|status| status.last_seen);
        seen.is_some_and(|seen| self.now.since(seen) <= limit)
    }

    fn committed(&self, device: &DeviceId) -> bool {
        let status = self.devices.get(device);
        status.is_some_and(|status| {
            status.up_to_date && status.committed.as_ref().is_some_and(|package| self.is_target(package))
        })
    }

    /// What a device lacks to run the release.
    fn unfit(&self, device: &DeviceId) -> Option<&'a str> {
        let (package, lack) = self.devices.get(device)?.unfit.as_ref()?;
        self.is_target(package).then_some(lack.as_str())
    }

    /// A device that tried the release and went back by itself, with its words. One that cannot run it has not tried.
    fn undone(&self, device: &DeviceId) -> Option<&'a str> {
        if self.unfit(device).is_some() {
            return None;
        }
        let (package, reason) = self.devices.get(device)?.undone.as_ref()?;
        self.is_target(package).then_some(reason.as_str())
    }

    /// Whether a device says that it cannot run a release, or that it undid it.
    fn refuses(status: &DeviceStatus, release: &ReleaseRef) -> bool {
        let mut refused = [&status.unfit, &status.undone].into_iter().flatten();
        refused.any(|(package, _)| package.sha256 == release.sha256)
    }

    fn stay(&self, reasons: Vec<String>) -> Plan {
        Plan { next: self.rollout.state.clone(), assign: Vec::new(), reasons }
    }

    fn reason_to_stop(&self, evidence: &Evidence) -> Option<String> {
        let undone: Vec<_> =
            self.rollout.taken.keys().filter_map(|device| Some((device, self.undone(device)?))).collect();
        if let Some((device, reason)) =
            undone.first().filter(|_| undone.len() > self.rollout.policy.undone_max as usize)
        {
            let (count, most) = (undone.len(), self.rollout.policy.undone_max);
            return Some(format!("{count} device(s) undid the release ({most} may): {device} because {reason}"));
        }
        match gate(&self.rollout.policy, evidence) {
            Gate::Harm(reason) => Some(reason),
            Gate::Pass | Gate::Wait(_) => None,
        }
    }

    fn running(&self, wave: usize, since: Micros, evidence: &Evidence) -> Plan {
        if let Some(reason) = self.reason_to_stop(evidence) {
            return self.stop(reason);
        }
        let assign = self.members(wave);
        if !assign.is_empty() {
            let percent = self.rollout.policy.waves()[wave];
            let reason = format!("wave {} ({percent} %): {} device(s) assigned", wave + 1, assign.len());
            return Plan { assign, ..self.stay(vec![reason]) };
        }
        let waiting = self.waiting(wave, evidence);
        if waiting.is_empty() {
            return self.advance(wave);
        }
        let limit =
            i64::try_from(self.rollout.policy.wave_timeout_s).unwrap_or(i64::MAX).saturating_mul(Micros::SECOND);
        // A fleet without any device waits for its first one without a time limit.
        if self.now.since(since) > limit && !self.rollout.taken.is_empty() {
            let reason = format!("wave {} did not pass in time: {}", wave + 1, waiting.join("; "));
            let next = RolloutState::Paused { wave, since: self.now, reason: reason.clone() };
            return Plan { next, assign: Vec::new(), reasons: vec![reason] };
        }
        self.stay(waiting)
    }

    /// What still stands between the wave and the next one.
    fn waiting(&self, wave: usize, evidence: &Evidence) -> Vec<String> {
        let taken = &self.rollout.taken;
        if taken.is_empty() {
            return vec!["no device matches".to_owned()];
        }
        let mut waiting = Vec::new();
        let open: Vec<&DeviceId> = taken
            .keys()
            .filter(|device| self.reachable(device) && !self.committed(device))
            .filter(|device| self.undone(device).is_none() && self.unfit(device).is_none())
            .collect();
        if let Some(first) = open.first() {
            waiting.push(format!("{} device(s) have not committed yet, {first} among them", open.len()));
        }
        if !taken.keys().any(|device| self.committed(device)) {
            waiting.push(match self.first_unfit() {
                Some((count, device, lack)) if count == taken.len() => {
                    format!("no device can run the release: {count} of {count} are unfit, {device} because {lack}")
                }
                _ => "no device has committed yet".to_owned(),
            });
        }
        // After the last wave there is nothing left to protect by waiting for exposure.
        let last = wave + 1 >= self.rollout.policy.waves().len();
        if let (false, Gate::Wait(reason)) = (last, gate(&self.rollout.policy, evidence)) {
            waiting.push(reason);
        }
        waiting
    }

    fn advance(&self, wave: usize) -> Plan {
        let committed = self.rollout.taken.keys().filter(|device| self.committed(device)).count();
        let mut passed = format!("wave {} passed: {committed} device(s) committed", wave + 1);
        if let Some((count, device, lack)) = self.first_unfit() {
            passed.push_str(&format!(", {count} cannot run the release: {device} because {lack}"));
        }
        if wave + 1 >= self.rollout.policy.waves().len() {
            let next = RolloutState::Completed { since: self.now };
            return Plan { next, assign: Vec::new(), reasons: vec![passed, "rollout completed".to_owned()] };
        }
        let assign = self.members(wave + 1);
        let started = format!(
            "wave {} ({} %): {} device(s) assigned",
            wave + 2,
            self.rollout.policy.waves()[wave + 1],
            assign.len()
        );
        let next = RolloutState::Running { wave: wave + 1, since: self.now };
        Plan { next, assign, reasons: vec![passed, started] }
    }

    /// How many of those that were assigned the release cannot run it, the first of them, and what it lacks.
    fn first_unfit(&self) -> Option<(usize, &'a DeviceId, &'a str)> {
        let mut unfit = self.rollout.taken.keys().filter_map(|device| Some((device, self.unfit(device)?)));
        let (device, lack) = unfit.next()?;
        Some((1 + unfit.count(), device, lack))
    }

    /// The devices that the wave still lacks, as a share of those that can run the release: reachable ones first, since only they can tell anything, then in an
    /// order that differs from rollout to rollout, so that not always the same devices go first.
    fn members(&self, wave: usize) -> Vec<Assign> {
        let percent = u64::from(self.rollout.policy.waves()[wave]);
        let fleet: BTreeSet<&DeviceId> = self.devices.keys().copied().chain(self.rollout.taken.keys()).collect();
        let unfit = |device: &&DeviceId| self.unfit(device).is_some();
        let eligible = fleet.len() - fleet.iter().copied().filter(unfit).count();
        let needed = (eligible as u64 * percent).div_ceil(100).max(u64::from(!fleet.is_empty())) as usize;
        let taken = self.rollout.taken.len() - self.rollout.taken.keys().filter(unfit).count();
        let mut rest: Vec<&DeviceStatus> =
            self.devices.values().copied().filter(|status| !self.rollout.taken.contains_key(&status.device)).collect();
        // Who says beforehand that it cannot run the release comes last: it gets it when it can.
        let last = |status: &DeviceStatus| (self.unfit(&status.device).is_some(), !self.reachable(&status.device));
        rest.sort_by_key(|status| (last(status), place(self.rollout.id, &status.device)));
        rest.truncate(needed.saturating_sub(taken));
        rest.into_iter().map(|status| self.install(status, wave)).collect()
    }

    fn install(&self, status: &DeviceStatus, wave: usize) -> Assign {
        // Where the hub never assigned anything there is no way back that it could sign.
        let before = status.had.clone();
        Assign { device: status.device.clone(), wave, target: Target::Install { before } }
    }

    fn stop(&self, reason: String) -> Plan {
        let next = RolloutState::Stopping { since: self.now, reason: reason.clone() };
        let assign = self.rollbacks();
        let back = format!("stopped; {} device(s) go back", assign.len());
        Plan { next, assign, reasons: vec![reason, back] }
    }

    /// Every device that was ever assigned the release and not yet assigned back, whether it took it or not: it may
    /// have the assignment without having said so.
    fn rollbacks(&self) -> Vec<Assign> {
        let open = self.rollout.taken.iter().filter(|(_, taken)| taken.rolled_back.is_none());
        open.map(|(device, taken)| Assign {
            device: device.clone(),
            wave: taken.wave,
            target: Target::Rollback { to: taken.before.clone() },
        })
        .collect()
    }

    /// Devices that stay on the release because they refuse what they were sent back to: they were told to run that, but
    /// never did. They go to what they ran before; without that the line is no longer assigned, and the fallback answers.
    fn other_ways_back(&self) -> Vec<Assign> {
        let ways = self.rollout.taken.iter().filter_map(|(device, taken)| {
            let (before, status) = (taken.before.as_ref()?, *self.devices.get(device)?);
            let stays = status.up_to_date && status.committed.as_ref().is_some_and(|it| self.is_target(it));
            let other = |it: &&ReleaseRef| it.sha256 != self.rollout.target.sha256 && !Self::refuses(status, it);
            let to = status.previous.as_ref().filter(other).cloned();
            let target = Target::Rollback { to };
            (stays && Self::refuses(status, before)).then(|| Assign {
                device: device.clone(),
                wave: taken.wave,
                target,
            })
        });
        ways.collect()
    }

    fn stopping(&self, since: Micros, reason: &str) -> Plan {
        let assign = self.rollbacks();
        if !assign.is_empty() {
            let said = format!("{} device(s) go back", assign.len());
            return Plan { assign, ..self.stay(vec![said]) };
        }
        let assign = self.other_ways_back();
        if !assign.is_empty() {
            let said = format!("{} device(s) cannot go back to what they were told, and go elsewhere", assign.len());
            return Plan { assign, ..self.stay(vec![said]) };
        }
        let back = |device: &&DeviceId| {
            self.devices.get(*device).is_some_and(|status| {
                let runs = |package: &Option<PackageRef>| package.as_ref().is_some_and(|p| self.is_target(p));
                // Who had the release before this rollout keeps it.
                let had = self.rollout.taken[*device]
                    .before
                    .as_ref()
                    .is_some_and(|it| it.sha256 == self.rollout.target.sha256);
                status.up_to_date && (had || (!runs(&status.committed) && !runs(&status.candidate)))
            })
        };
        let open: Vec<&DeviceId> = self.rollout.taken.keys().filter(|device| !back(device)).collect();
        if let Some(first) = open.first() {
            return self.stay(vec![format!("{} device(s) have not confirmed, {first} among them", open.len())]);
        }
        let seconds = self.now.since(since) / Micros::SECOND;
        let said = format!("every device is back, {seconds} s after the stop");
        let next = RolloutState::Stopped { since: self.now, reason: reason.to_owned() };
        Plan { next, assign: Vec::new(), reasons: vec![said] }
    }

    fn completed(&self) -> Plan {
        let last = self.rollout.policy.waves().len() - 1;
        let fresh = self.devices.values().filter(|status| !self.rollout.taken.contains_key(&status.device));
        let assign: Vec<Assign> = fresh.map(|status| self.install(status, last)).collect();
        let reasons = assign.iter().map(|assign| format!("{} appeared and gets the release", assign.device)).collect();
        Plan { assign, ..self.stay(reasons) }
    }
}

/// Place of a device in the order of a rollout: FNV-1a over both, then mixed so that neighbours in name are not
/// neighbours in order.
fn place(rollout: i64, device: &DeviceId) -> u64 {
    let bytes = rollout.to_le_bytes().into_iter().chain(device.as_str().bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}
