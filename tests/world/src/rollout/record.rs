//! What a hub has stored, and what of it the decisions are asked with.

use std::collections::BTreeMap;

use cloud_hub_core::rollout::assignments::{Desired, Wish, had};
use cloud_hub_core::rollout::restored::{followed, goes_on, next_version, versions_of};
use cloud_hub_core::rollout::{Counters, Member, Restored, Rollout};
use tributary_wire::{
    Assignment, DeviceId, Generation, Incarnation, LineName, Micros, ReleaseRef, Report, ReportV1, Role, Sha256,
    SignedAssignment, VersionNumber,
};

use super::packages::{Kind, Repository, line};

/// Rollouts of a restored hub wait for this share of its devices …
const RESTORED_SHARE: f64 = 0.9;
/// … at most so long.
pub(super) const RESTORED_WAIT: i64 = 15 * 60 * Micros::SECOND;

/// One rollout with what belongs to its row.
#[derive(Debug, Clone)]
pub(super) struct Course {
    pub(super) rollout: Rollout,
    pub(super) baseline: BTreeMap<DeviceId, Counters>,
}

/// A device's last report.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub(super) report: Report,
    pub(super) number: (Incarnation, u64),
    pub(super) at: Micros,
}

/// Everything that the hub has stored, and that a backup holds.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) rollouts: BTreeMap<i64, Course>,
    pub(super) wishes: BTreeMap<(DeviceId, LineName, Role), Wish>,
    pub(super) signed: BTreeMap<DeviceId, SignedAssignment>,
    pub(super) heard: BTreeMap<DeviceId, Heard>,
    /// Lives of devices' states that are over, with the last number heard of each.
    pub(super) over: BTreeMap<(DeviceId, Incarnation), u64>,
    pub(super) releases: BTreeMap<u32, (ReleaseRef, Kind)>,
    pub(super) repository: Repository,
    /// Entries of the audit log, as far as assignments carry them.
    pub(super) audit: u64,
    /// Set on a hub that was restored from a backup.
    pub(super) restored: Option<Restored>,
    /// Devices that a restored hub waits for, and until when.
    pub(super) waits_for: (usize, Micros),
    /// Packages that were published after the backup: somebody still has the files.
    pub(super) forgotten: BTreeMap<u32, (ReleaseRef, Kind, Vec<u8>)>,
}

impl Record {
    pub(super) fn members(&self) -> Vec<Member> {
        let member = |(device, heard): (&DeviceId, &Heard)| {
            Member::new(device.clone(), BTreeMap::new(), heard.at, Some(&heard.report))
        };
        self.heard.iter().map(member).collect()
    }

    /// The rollout that answers for each role.
    pub(super) fn newest(&self) -> BTreeMap<Role, i64> {
        self.rollouts.iter().map(|(id, course)| (course.rollout.role.clone(), *id)).collect()
    }

    pub(super) fn wished(&self, role: &Role) -> BTreeMap<DeviceId, ReleaseRef> {
        let of_role = self.wishes.iter().filter(|((_, _, it), _)| it == role);
        of_role.map(|((device, ..), wish)| (device.clone(), wish.release.clone())).collect()
    }

    pub(super) fn holders(&self, role: &Role) -> Vec<DeviceId> {
        self.wished(role).into_keys().collect()
    }

    pub(super) fn may_install(&self, rollout: i64) -> bool {
        self.rollouts.get(&rollout).is_some_and(|course| course.rollout.state.allows_install())
    }

    /// What a device should run.
    pub(super) fn desired(&self, device: &DeviceId) -> Desired {
        let reads = self.heard.get(device).map_or(1, |heard| heard.report.base().reads);
        let own = self.wishes.iter().filter(|((it, ..), _)| it == device);
        let wishes = own.map(|(_, wish)| wish.clone()).collect();
        Desired { reads, wishes, flags: Vec::new(), sampling: None, taken_back: Micros(0) }
    }

    /// What may be said of it now.
    pub(super) fn sayable(&self, device: &DeviceId, may_install: impl Fn(i64) -> bool) -> Desired {
        let has = self.heard.get(device).map_or(&[][..], |heard| &heard.report.base().lines);
        let releases: Vec<ReleaseRef> = self.releases.values().map(|(release, _)| release.clone()).collect();
        let had = |wish: &Wish, committed| {
            let taken = self.rollouts.get(&wish.rollout).and_then(|course| course.rollout.taken.get(device));
            had(wish, committed, taken, &releases)
        };
        self.desired(device).sayable(has, may_install, had)
    }

    /// The newest generation signed for a device.
    pub(super) fn generation(&self, device: &DeviceId) -> Generation {
        let signed = self.signed.get(device).and_then(|signed| Assignment::decode(&signed.payload).ok());
        signed.map_or(Generation(0), |assignment| assignment.desired().generation)
    }

    pub(super) fn generations(&self) -> BTreeMap<DeviceId, Generation> {
        self.signed.keys().map(|device| (device.clone(), self.generation(device))).collect()
    }

    /// Above all that the hub knows, and all that devices have from before a restore.
    pub(super) fn next_version(&self) -> u32 {
        let lines = self.heard.values().flat_map(|heard| &heard.report.base().lines);
        let given = self.releases.keys().copied().max().unwrap_or(0);
        next_version(VersionNumber(given), versions_of(lines, &line())).0
    }

    /// A restored hub waits until enough devices have reported.
    pub(super) fn wait(&mut self, now: Micros) {
        let Some(restored) = self.restored.as_mut().filter(|restored| restored.waits) else { return };
        let (waits_for, until) = self.waits_for;
        let count = (waits_for as u64, restored.reported.len() as u64);
        restored.waits = goes_on(count, RESTORED_SHARE, Some(until), now).is_none();
    }

    /// A restored hub learns from a report what it has forgotten.
    pub(super) fn learn(&mut self, device: &DeviceId, report: &ReportV1) {
        let signed = self.generation(device);
        let Some(restored) = &mut self.restored else { return };
        for package in report.lines.iter().filter_map(|line| line.committed) {
            let package_of = (line(), package.sha256);
            let known = self.releases.values().any(|(release, _)| release.sha256 == package.sha256);
            if !known && !restored.overruled.contains(&package_of) {
                restored.unknown.insert(package_of);
            }
        }
        let follows = restored.follows(device, report.generation, signed);
        restored.reported.insert(device.clone());
        if follows {
            self.follow(device, report);
        }
    }

    /// A device's wishes follow what it has committed.
    pub(super) fn follow(&mut self, device: &DeviceId, report: &ReportV1) {
        let releases: Vec<ReleaseRef> = self.releases.values().map(|(release, _)| release.clone()).collect();
        for ((_, of_line, role), wish) in self.wishes.iter_mut().filter(|((it, ..), _)| it == device) {
            let own = report.lines.iter().find(|of| (&of.line, &of.role) == (of_line, role));
            if let Some(new) = own.and_then(|of| followed(wish, &of.committed?, &releases)) {
                *wish = new;
            }
        }
    }

    /// Whether a restored hub tells a device nothing now.
    pub(super) fn holds(&self, device: &DeviceId) -> bool {
        let Some(restored) = &self.restored else { return false };
        let lines = self.heard.get(device).map_or(&[][..], |heard| &heard.report.base().lines);
        restored.holds(device, lines, |of| {
            let wish = self.wishes.get(&(device.clone(), of.line.clone(), of.role.clone()));
            let newest = self.newest().get(&of.role).map(|id| &self.rollouts[id].rollout);
            restored.has_decided(device, of, wish, newest)
        })
    }

    /// Whether a restored hub still leaves devices alone, until newer rollouts take them.
    pub(super) fn leaves_alone(&self) -> bool {
        self.restored.as_ref().is_some_and(|it| !it.unknown.is_empty() || !it.overruled.is_empty())
    }

    /// Whether a device says that it has this for good.
    pub(super) fn has_committed(&self, device: &DeviceId, role: &Role, sha256: &Sha256) -> bool {
        let lines = self.heard.get(device).into_iter().flat_map(|heard| &heard.report.base().lines);
        let mut own = lines.filter(|of| of.role == *role);
        own.any(|of| of.committed.is_some_and(|package| package.sha256 == *sha256))
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
