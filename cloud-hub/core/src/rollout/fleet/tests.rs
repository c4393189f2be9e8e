//! Where the way back leads, from what devices report and what they were told.

use tributary_wire::{TrialReport, VersionNumber};

use super::super::{Policy, Strategy, Target, testing};
use super::*;

const NOW: Micros = Micros(1_000 * Micros::SECOND);

fn release(version: u32) -> ReleaseRef {
    ReleaseRef { version: VersionNumber(version), length: 1, sha256: Sha256([version as u8; 32]) }
}

fn package(version: u32) -> PackageRef {
    PackageRef { version: VersionNumber(version), sha256: release(version).sha256 }
}

fn line() -> LineName {
    LineName::new("card-fraud").unwrap()
}

fn device() -> DeviceId {
    DeviceId::new("edge-1").unwrap()
}

/// A device that runs one version for good; why it did not take version 4, and whether because it cannot run it.
fn member(committed: u32, refused: Option<(&str, bool)>) -> Member {
    let role = Role::primary();
    let (undone, unfit) = match refused {
        Some((reason, unfit)) => (Some((package(4), reason.to_owned())), unfit),
        None => (None, false),
    };
    let unfit = unfit.then(|| Unfit { line: line(), role: role.clone(), package: package(4), reasons: Vec::new() });
    let report = LineReport {
        line: line(),
        role,
        state: UpdaterState::Committed,
        committed: Some(package(committed)),
        previous: None,
        candidate: None,
        undone,
        error: None,
        engine: String::new(),
        trial: TrialReport::default(),
    };
    let report = testing::report(9, vec![report], unfit.into_iter().collect());
    Member::new(device(), BTreeMap::new(), NOW, Some(&report))
}

/// One look at a rollout by a hub that told the device to run a version; where it sends it back to, if it does.
fn look(rollout: &mut Rollout, told: Option<u32>, member: Member) -> Option<Option<ReleaseRef>> {
    let wishes = told.map(|version| (device(), release(version))).into_iter().collect();
    let (generations, releases) = (BTreeMap::new(), [1, 2, 4, 10].map(release));
    let (wishes, generations, releases) = (&wishes, &generations, &releases[..]);
    let known = Known { wishes, generations, releases, restored: None, patches: 0 };
    let step = advance(rollout, &mut BTreeMap::new(), &[member], known, NOW)?;
    let mut back = step.plan.assign.into_iter().filter_map(|assign| match assign.target {
        Target::Install { .. } => None,
        Target::Rollback { to } => Some(to),
    });
    back.next()
}

/// A device that was told to run a version takes version 10, which is stopped: where it goes.
fn way_back(told: Option<u32>, before: Member) -> Option<ReleaseRef> {
    let policy = Policy { strategy: Strategy::All, ..Policy::default() };
    let mut rollout = Rollout::new(7, line(), Role::primary(), release(10), policy, NOW);
    assert_eq!(look(&mut rollout, told, before), None, "it is installed");
    rollout.abort("it is bad", NOW).unwrap();
    look(&mut rollout, Some(10), member(10, None)).expect("it goes back")
}

#[test]
fn a_device_that_could_not_run_what_it_was_told_goes_back_to_what_it_ran() {
    let unfit = |committed| member(committed, Some(("it needs 64 MiB, the machine has 32 MiB", true)));
    assert_eq!(way_back(Some(4), unfit(1)), Some(release(1)));
    assert_eq!(way_back(Some(2), unfit(1)), Some(release(2)), "it is another that it cannot run");
    assert_eq!(way_back(Some(4), unfit(9)), None, "nobody here knows version 9");
}

#[test]
fn a_device_that_undid_what_it_was_told_goes_back_to_what_it_ran() {
    let undid = |committed| member(committed, Some(("3 of 10 predictions failed", false)));
    assert_eq!(way_back(Some(4), undid(1)), Some(release(1)));
    assert_eq!(way_back(Some(2), undid(1)), Some(release(2)));
}

#[test]
fn a_device_that_refuses_its_way_back_goes_to_what_it_ran_before_or_to_nothing() {
    for (previous, unfit) in [(Some(1), true), (Some(1), false), (Some(9), true), (Some(10), true), (None, false)] {
        let policy = Policy { strategy: Strategy::All, ..Policy::default() };
        let mut rollout = Rollout::new(7, line(), Role::primary(), release(10), policy, NOW);
        assert_eq!(look(&mut rollout, Some(4), member(1, None)), None, "nobody knows yet that it cannot run version 4");
        rollout.abort("it is bad", NOW).unwrap();
        assert_eq!(look(&mut rollout, Some(10), member(10, None)), Some(Some(release(4))));
        let mut refuses = member(10, Some(("it cannot", unfit)));
        refuses.report.as_mut().unwrap().lines[0].previous = previous.map(package);
        let known = previous.filter(|version| *version == 1);
        assert_eq!(look(&mut rollout, Some(4), refuses.clone()), Some(known.map(release)), "{previous:?}");
        assert_eq!(look(&mut rollout, known, refuses), None, "once");
        assert_eq!(look(&mut rollout, known, member(1, None)), None);
        assert!(matches!(rollout.state, RolloutState::Stopped { .. }), "{:?}", rollout.state);
    }
}

#[test]
fn a_stop_ends_where_devices_had_the_release_before() {
    let policy = Policy { strategy: Strategy::All, ..Policy::default() };
    let mut rollout = Rollout::new(7, line(), Role::primary(), release(10), policy, NOW);
    assert_eq!(look(&mut rollout, Some(10), member(10, None)), None);
    rollout.abort("it is bad", NOW).unwrap();
    assert_eq!(look(&mut rollout, Some(10), member(10, None)), Some(Some(release(10))), "it keeps what it had");
    assert_eq!(look(&mut rollout, Some(10), member(10, None)), None);
    assert!(matches!(rollout.state, RolloutState::Stopped { .. }), "{:?}", rollout.state);
}

#[test]
fn the_way_back_leads_to_what_a_device_was_told_though_it_is_still_on_its_way_there() {
    assert_eq!(way_back(Some(4), member(1, None)), Some(release(4)), "its rollout is complete");
    assert_eq!(way_back(Some(4), member(9, None)), Some(release(4)));
    assert_eq!(way_back(None, member(2, None)), Some(release(2)), "it came another way");
    assert_eq!(way_back(None, member(9, None)), None);
}
