//! A wave waits for the patches to its release: who is assigned before they are made fetches the whole package.

use tributary_wire::Micros;

use super::{Plan, Rollout, RolloutState};

/// A wave that has begun for somebody is not held for those who come later, and none for longer than the policy says.
fn waits(rollout: &Rollout, state: &RolloutState, now: Micros) -> bool {
    let RolloutState::Running { wave, since } = state else { return false };
    let limit = i64::try_from(rollout.policy.patch_wait_s).unwrap_or(i64::MAX).saturating_mul(Micros::SECOND);
    now.since(*since) < limit && rollout.taken.values().all(|taken| taken.wave != *wave)
}

/// Leaves out of a plan the assignments of a wave whose patches are still being made. The wave itself begins: its
/// state says since when it waits.
pub(super) fn hold_back(open: usize, rollout: &Rollout, plan: &mut Plan, now: Micros) {
    if open == 0 || plan.assign.is_empty() || !waits(rollout, &plan.next, now) {
        return;
    }
    plan.assign.clear();
    // The last reason tells of those who were to be assigned.
    plan.reasons.pop();
    let limit = rollout.policy.patch_wait_s;
    plan.reasons.push(format!("waits until {open} patch(es) to the release are made, {limit} s at most"));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tributary_wire::{DeviceId, LineName, ReleaseRef, Role, Sha256, VersionNumber};

    use super::super::{Known, Member, Policy, advance, outlook};
    use super::*;

    fn at(seconds: i64) -> Micros {
        Micros(seconds * Micros::SECOND)
    }

    fn members() -> Vec<Member> {
        let member = |name: &str| Member::new(DeviceId::new(name).unwrap(), BTreeMap::new(), at(1_000), None);
        ["edge-1", "edge-2"].into_iter().map(member).collect()
    }

    fn rollout(policy: Policy) -> Rollout {
        let target = ReleaseRef { version: VersionNumber(2), length: 1, sha256: Sha256([2; 32]) };
        Rollout::new(1, LineName::new("card-fraud").unwrap(), Role::primary(), target, policy, at(1_000))
    }

    /// Whom a look at the rollout assigns, and what it says, with so many patches to be made.
    fn look(rollout: &mut Rollout, patches: usize, seconds: i64) -> (usize, String) {
        let (wishes, generations) = (BTreeMap::new(), BTreeMap::new());
        let known = Known { wishes: &wishes, generations: &generations, releases: &[], restored: None, patches };
        let (plan, _) = outlook(rollout, &BTreeMap::new(), &members(), known, at(seconds));
        let step = advance(rollout, &mut BTreeMap::new(), &members(), known, at(seconds));
        assert_eq!(step.map_or(0, |step| step.plan.assign.len()), plan.assign.len());
        (plan.assign.len(), plan.reasons.join("; "))
    }

    #[test]
    fn nobody_is_assigned_before_the_patches_are_made_or_the_time_is_up() {
        let policy = Policy { strategy: super::super::Strategy::All, patch_wait_s: 60, ..Policy::default() };
        let mut all = rollout(policy.clone());
        let (assigned, said) = look(&mut all, 3, 1_000);
        assert_eq!((assigned, said.as_str()), (0, "waits until 3 patch(es) to the release are made, 60 s at most"));
        assert_eq!(look(&mut all, 1, 1_059).0, 0);
        assert_eq!(look(&mut all.clone(), 1, 1_060).0, 2, "it waited long enough");
        assert_eq!(look(&mut all, 0, 1_010).0, 2, "they are made");
        let mut hasty = rollout(Policy { patch_wait_s: 0, ..policy });
        assert_eq!(look(&mut hasty, 3, 1_000).0, 2);
    }

    #[test]
    fn every_wave_waits_anew_and_one_that_began_goes_on() {
        let mut waves = rollout(Policy { percent: vec![50, 100], patch_wait_s: 60, ..Policy::default() });
        assert_eq!(look(&mut waves, 0, 1_000).0, 1);
        let taken = waves.taken.clone();
        waves.state = RolloutState::Running { wave: 1, since: at(2_000) };
        assert_eq!(look(&mut waves, 1, 2_000).0, 0, "the second wave waits");
        assert_eq!(look(&mut waves, 1, 2_060).0, 1);
        // Of a wave of two devices one came later.
        waves.taken = taken;
        waves.taken.values_mut().for_each(|taken| taken.wave = 1);
        waves.state = RolloutState::Running { wave: 1, since: at(2_000) };
        assert_eq!(look(&mut waves, 1, 2_001).0, 1);
    }

    #[test]
    fn the_way_back_waits_for_nothing() {
        let mut all = rollout(Policy { strategy: super::super::Strategy::All, ..Policy::default() });
        assert_eq!(look(&mut all, 0, 1_000).0, 2);
        all.abort("because", at(1_001)).unwrap();
        assert_eq!(look(&mut all, 9, 1_002).0, 2);
    }
}
