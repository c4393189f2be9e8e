//! What a hub that was restored from a backup may decide. Its devices know more than it does.

use std::collections::BTreeSet;

use tributary_wire::{
    DeviceId, Generation, LineName, LineReport, Micros, PackageRef, ReleaseRef, Role, Sha256, VersionNumber,
};

use super::assignments::Wish;
use super::fleet::release_of;
use super::{Member, Plan, Rollout};

/// How far above the versions that a restored hub knows of a line a device's word is believed. Numbers may be made of
/// dates: a year's turn of those must fit.
pub const MAX_VERSION_STEP: u32 = 10_000_000;

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
    /// Packages that the hub does not know, and of which an operator said that devices may be moved away from them.
    pub overruled: BTreeSet<(LineName, Sha256)>,
    /// When the backup was restored.
    pub since: Micros,
}

impl Restored {
    /// Whether nothing is signed for a device now, neither a new assignment nor an old one again: everything waits, it
    /// has not reported, or in some role it runs what the hub does not know and nobody has `decided` since what it
    /// shall run there. An assignment speaks of all roles at once, so one of them holds back the others.
    pub fn holds(&self, device: &DeviceId, lines: &[LineReport], decided: impl Fn(&LineReport) -> bool) -> bool {
        let lacks = |of: &LineReport| {
            let package = of.committed.map(|package| (of.line.clone(), package.sha256));
            package.is_some_and(|package| self.unknown.contains(&package) || self.overruled.contains(&package))
        };
        self.waits || !self.reported.contains(device) || lines.iter().any(|of| lacks(of) && !decided(of))
    }

    /// Whether since the restore anybody decided what a device shall run in a role, going by what it reports of the role,
    /// what is wished for it and the role's newest rollout. A challenger or shadow that this hub has nothing to do with
    /// ends when its package was overruled; a primary does not, or the device would be left with none.
    pub fn has_decided(
        &self,
        device: &DeviceId,
        of: &LineReport,
        wish: Option<&Wish>,
        newest: Option<&Rollout>,
    ) -> bool {
        let taken = newest.and_then(|rollout| rollout.taken.get(device));
        let overruled = of.committed.is_some_and(|it| self.overruled.contains(&(of.line.clone(), it.sha256)));
        let ends = overruled && wish.is_none() && of.role != Role::primary();
        ends || wish.is_some_and(|wish| wish.rollout > self.last_rollout)
            || taken.is_some_and(|taken| taken.at.max(taken.rolled_back.unwrap_or(taken.at)) >= self.since)
    }

    /// Whether a device's wishes [follow](followed) its first report since the restore: it names a generation that this
    /// hub has not signed, so somebody decided after the backup.
    pub fn follows(&self, device: &DeviceId, reported: Generation, signed: Generation) -> bool {
        !self.reported.contains(device) && reported > signed
    }

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

/// Why rollouts go on after a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoesOn {
    /// Enough devices have reported.
    Heard,
    /// The others were waited for long enough.
    Late,
}

/// How many of the devices that are waited for have to report before rollouts go on.
pub fn enough(waits_for: u64, share: f64) -> u64 {
    (waits_for as f64 * share.clamp(0.0, 1.0)).ceil() as u64
}

/// Whether rollouts go on after a restore: of so many devices that are waited for so many have reported. `until` says
/// when they go on at the latest.
pub fn goes_on((waits_for, reported): (u64, u64), share: f64, until: Option<Micros>, now: Micros) -> Option<GoesOn> {
    if reported >= enough(waits_for, share) {
        return Some(GoesOn::Heard);
    }
    until.is_some_and(|until| now >= until).then_some(GoesOn::Late)
}

/// What a device was told after the backup is what it shall run: its wish follows the release that it has committed, if
/// that is one of the line's `releases`. `None`: the wish stays. The devices' own word is all that is left of those
/// decisions.
pub fn followed(wish: &Wish, committed: &PackageRef, releases: &[ReleaseRef]) -> Option<Wish> {
    if wish.release.sha256 == committed.sha256 {
        return None;
    }
    let release = release_of(releases, committed)?.clone();
    Some(Wish { release, allow_lower: false, ..wish.clone() })
}

/// Versions of a line that any device has, had or tries, as its report says.
pub fn versions_of<'a>(
    reported: impl IntoIterator<Item = &'a LineReport>,
    line: &LineName,
) -> impl Iterator<Item = VersionNumber> {
    let undone = |of: &LineReport| of.undone.as_ref().map(|(package, _)| *package);
    let of_line = reported.into_iter().filter(move |of| of.line == *line);
    let packages = of_line.flat_map(move |of| [of.committed, of.previous, of.candidate, undone(of)]);
    packages.flatten().map(|package| package.version)
}

/// The number that a line's next version gets: above the highest that this hub knows to be `given`, and above all that
/// were `seen` on devices. A number that a forgotten release has is not given again: who has that one would refuse
/// another of the same number.
pub fn next_version(given: VersionNumber, seen: impl IntoIterator<Item = VersionNumber>) -> VersionNumber {
    // A number that no backup explains would only use up the line's numbers.
    let credible = |seen: &VersionNumber| seen.0 <= given.0.saturating_add(MAX_VERSION_STEP);
    let highest = seen.into_iter().filter(credible).fold(given, VersionNumber::max);
    VersionNumber(highest.0.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use tributary_wire::{TrialReport, UpdaterState};

    use super::*;

    fn wish(hash: u8, rollout: i64) -> Wish {
        Wish {
            line: LineName::new("card-fraud").unwrap(),
            role: Role::primary(),
            release: ReleaseRef { version: VersionNumber(hash.into()), length: 1, sha256: Sha256([hash; 32]) },
            allow_lower: false,
            rollout,
            share: 0,
        }
    }

    fn report(role: &str, committed: Option<u8>) -> LineReport {
        let package = |hash: u8| PackageRef { version: VersionNumber(hash.into()), sha256: Sha256([hash; 32]) };
        LineReport {
            line: LineName::new("card-fraud").unwrap(),
            role: Role::new(role).unwrap(),
            state: UpdaterState::Idle,
            committed: committed.map(package),
            previous: None,
            candidate: None,
            undone: None,
            error: None,
            engine: String::new(),
            trial: TrialReport::default(),
        }
    }

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

    #[test]
    fn one_role_with_an_unknown_package_holds_back_the_others_until_somebody_decides() {
        let device = DeviceId::new("edge-1").unwrap();
        let line = report("primary", Some(9));
        let unknown = (line.line.clone(), Sha256([9; 32]));
        let mut restored = Restored { last_rollout: 4, since: Micros(100), ..Restored::default() };
        restored.reported.insert(device.clone());
        let lines = [line.clone(), report("challenger-b", Some(1))];
        assert!(!restored.holds(&device, &lines, |_| false), "all is known");
        restored.unknown.insert(unknown.clone());
        assert!(restored.holds(&device, &lines, |of| of.role.is_challenger()));
        assert!(!restored.holds(&device, &lines, |of| !of.role.is_challenger()), "decided since");
        (restored.unknown, restored.overruled) = (BTreeSet::new(), BTreeSet::from([unknown]));
        assert!(restored.holds(&device, &lines, |_| false), "leave alone is no order yet");

        let mut wish = wish(9, 4);
        assert!(!restored.has_decided(&device, &line, Some(&wish), None), "from before");
        wish.rollout = 5;
        assert!(restored.has_decided(&device, &line, Some(&wish), None));
        let challenger = report("challenger-b", Some(9));
        assert!(restored.has_decided(&device, &challenger, None, None), "nobody here wants it");
        assert!(!restored.has_decided(&device, &line, None, None), "a device always has a primary");
        let target = wish.release.clone();
        let mut old =
            Rollout::new(4, line.line.clone(), line.role.clone(), target, crate::rollout::Policy::default(), Micros(1));
        let taken = crate::rollout::Taken { wave: 0, at: Micros(99), before: None, rolled_back: None };
        old.taken.insert(device.clone(), taken.clone());
        assert!(!restored.has_decided(&device, &line, None, Some(&old)));
        old.taken.insert(device.clone(), crate::rollout::Taken { rolled_back: Some(Micros(100)), ..taken });
        assert!(restored.has_decided(&device, &line, None, Some(&old)), "it was ordered back since");
    }

    #[test]
    fn wishes_follow_what_devices_were_told_after_the_backup_and_numbers_go_on_above_all_they_have() {
        let device = DeviceId::new("edge-1").unwrap();
        let mut restored = Restored::default();
        assert!(restored.follows(&device, Generation(7), Generation(6)));
        assert!(!restored.follows(&device, Generation(6), Generation(6)), "it knows no more than the hub");
        restored.reported.insert(device.clone());
        assert!(!restored.follows(&device, Generation(7), Generation(6)), "only its first report");

        let (wish, other) = (wish(2, 4), wish(3, 5).release);
        let committed = |hash: u8| PackageRef { version: VersionNumber(hash.into()), sha256: Sha256([hash; 32]) };
        assert_eq!(followed(&wish, &committed(2), std::slice::from_ref(&other)), None);
        assert_eq!(followed(&wish, &committed(9), std::slice::from_ref(&other)), None, "nobody here knows it");
        assert_eq!(followed(&wish, &committed(3), std::slice::from_ref(&other)).unwrap().release, other);

        let mut line = report("primary", Some(3));
        line.undone = Some((committed(8), "it failed".to_owned()));
        let next = |given| next_version(VersionNumber(given), versions_of([&line], &line.line)).0;
        assert_eq!((next(0), next(7), next(8), next(20)), (9, 9, 9, 21));
        assert_eq!(versions_of([&line], &LineName::new("other").unwrap()).count(), 0);
    }

    #[test]
    fn one_device_s_word_does_not_use_up_the_numbers_of_a_line() {
        let next = |given, seen: &[u32]| next_version(VersionNumber(given), seen.iter().copied().map(VersionNumber)).0;
        assert_eq!(next(7, &[u32::MAX, 9]), 10, "that no backup explains; the other device's word counts");
        assert_eq!((next(7, &[MAX_VERSION_STEP + 7]), next(7, &[MAX_VERSION_STEP + 8])), (MAX_VERSION_STEP + 8, 8));
        assert_eq!(next(20_261_231, &[20_270_101]), 20_270_102, "numbers made of dates");
        assert_eq!(
            next(u32::MAX, &[u32::MAX]),
            u32::MAX,
            "there are no more: whoever registers it is told that it exists"
        );
    }

    #[test]
    fn rollouts_wait_for_most_devices_and_never_for_ever() {
        assert_eq!((enough(0, 0.9), enough(1, 0.9), enough(10, 0.9), enough(11, 0.9)), (0, 1, 9, 10));
        let at = |reported, now| goes_on((10, reported), 0.9, Some(Micros(60)), Micros(now));
        assert_eq!((at(8, 59), at(9, 1), at(0, 60)), (None, Some(GoesOn::Heard), Some(GoesOn::Late)));
        assert_eq!(goes_on((0, 0), 0.9, None, Micros(0)), Some(GoesOn::Heard), "nobody to wait for");
        assert_eq!(goes_on((10, 0), 0.9, None, Micros(i64::MAX)), None);
    }
}
