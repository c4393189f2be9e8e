//! What a hub that was restored from a backup may decide. Its devices know more than it does.

use std::collections::BTreeSet;

use tributary_wire::{DeviceId, LineName, PackageRef, Sha256};

use super::{Member, Plan, Rollout};

/// What a restored hub has to heed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// Nothing is planned yet: too few devices have reported.
    pub waits: bool,
    /// Rollouts up to this one are from before.
    pub last_rollout: i64,
    /// Devices that have reported since. For no other is anything signed: it might have seen the generation that would
    /// be used, with other content.
    pub reported: BTreeSet<DeviceId>,
    /// Packages that the hub does not know, and about which nobody has decided. Who runs one is left alone.
    pub unknown: BTreeSet<(LineName, Sha256)>,
}

impl Restored {
    /// Whether an assignment may be signed for a device that runs this of a line.
    pub fn may_assign(&self, device: &DeviceId, line: &LineName, committed: Option<&PackageRef>) -> bool {
        let unknown = committed.is_some_and(|package| self.unknown.contains(&(line.clone(), package.sha256)));
        !self.waits && self.reported.contains(device) && !unknown
    }

    /// Whether a device is planned for. A rollout from before does not concern a device that has gone past it.
    pub(super) fn concerns(&self, rollout: &Rollout, member: &Member) -> bool {
        let committed = member.line(&rollout.line, &rollout.role).and_then(|line| line.committed);
        let old = rollout.id <= self.last_rollout && !rollout.taken.contains_key(&member.device);
        let past = committed.is_some_and(|package| package.version > rollout.target.version);
        self.may_assign(&member.device, &rollout.line, committed.as_ref()) && !(old && past)
    }

    /// Leaves out of a plan whom nothing may be signed for; it is planned again when they have reported.
    pub(super) fn hold_back(&self, rollout: &Rollout, members: &[Member], plan: &mut Plan) {
        if self.waits {
            let reasons = vec!["waits after a restore until devices have reported".to_owned()];
            *plan = Plan { next: rollout.state.clone(), assign: Vec::new(), reasons };
            return;
        }
        plan.assign.retain(|assign| {
            let member = members.iter().find(|member| member.device == assign.device);
            let line = member.and_then(|member| member.line(&rollout.line, &rollout.role));
            self.may_assign(&assign.device, &rollout.line, line.and_then(|line| line.committed).as_ref())
        });
    }
}

#[cfg(test)]
mod tests {
    use tributary_wire::VersionNumber;

    use super::*;

    #[test]
    fn nothing_is_signed_while_everything_waits_before_a_report_or_over_an_unknown_package() {
        let (device, line) = (DeviceId::new("edge-1").unwrap(), LineName::new("card-fraud").unwrap());
        let package = |hash: u8| PackageRef { version: VersionNumber(2), sha256: Sha256([hash; 32]) };
        let mut restored = Restored { waits: true, ..Restored::default() };
        restored.unknown.insert((line.clone(), Sha256([9; 32])));
        let may = |restored: &Restored, hash| restored.may_assign(&device, &line, Some(&package(hash)));
        assert!(!may(&restored, 1));
        restored.waits = false;
        assert!(!may(&restored, 1), "it has not reported");
        restored.reported.insert(device.clone());
        assert!(may(&restored, 1) && restored.may_assign(&device, &line, None));
        assert!(!may(&restored, 9), "nobody here knows what it runs");
        assert!(restored.may_assign(&device, &LineName::new("other").unwrap(), Some(&package(9))));
    }
}
