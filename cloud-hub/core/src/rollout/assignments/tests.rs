//! When a device is told again.

use tributary_wire::{Sha256, TrialReport, Unfit, UpdaterState, VersionNumber};

use super::super::testing::report;
use super::*;

const NOW: Micros = Micros(1_000);

fn wish(role: &str, version: u32, rollout: i64) -> Wish {
    Wish {
        line: LineName::new("fraud").unwrap(),
        role: Role::new(role).unwrap(),
        release: ReleaseRef { version: VersionNumber(version), length: 1, sha256: Sha256([version as u8; 32]) },
        allow_lower: false,
        rollout,
        share: 0,
    }
}

fn line_report(role: &str) -> LineReport {
    LineReport {
        line: LineName::new("fraud").unwrap(),
        role: Role::new(role).unwrap(),
        state: UpdaterState::Idle,
        committed: None,
        previous: None,
        candidate: None,
        undone: None,
        error: None,
        engine: String::new(),
        trial: TrialReport::default(),
    }
}

fn desired(wishes: Vec<Wish>) -> Desired {
    Desired { reads: 3, wishes, flags: Vec::new(), sampling: None, taken_back: Micros(0) }
}

fn answered(wanted: &Desired, before: &Desired, said: (u64, bool), may_install: fn(i64) -> bool) -> Answer {
    let device = DeviceId::new("edge-1").unwrap();
    let head = AuditHead { number: 1, hash: Sha256([0; 32]) };
    let assignment = before.assignment(&device, Generation(4), (head, 1), NOW);
    let signed = Signed { assignment: &assignment, by_present_key: true };
    let said = Said { generation: Generation(said.0), asks: said.1, unfinished: false };
    answer((wanted, &wanted.sayable(&[], may_install, |_, _| None)), signed, said, may_install, NOW)
}

#[test]
fn a_report_is_answered_by_what_it_lacks() {
    let wanted = desired(vec![wish("primary", 1, 1)]);
    assert_eq!(answered(&wanted, &wanted, (4, false), |_| true), Answer::Nothing);
    assert_eq!(answered(&wanted, &wanted, (4, true), |_| true), Answer::Again, "it asks");
    assert_eq!(answered(&wanted, &wanted, (3, false), |_| true), Answer::Again, "it lacks the newest");
    assert!(matches!(answered(&wanted, &wanted, (9, false), |_| true), Answer::Renew(_)), "an old backup");
    assert_eq!(answered(&wanted, &wanted, (3, true), |_| false), Answer::Nothing, "held");
}

#[test]
fn what_was_wished_while_another_role_was_held_is_signed_when_that_goes_on() {
    let before = desired(vec![wish("primary", 2, 1)]);
    let wanted = desired(vec![wish("challenger-b", 3, 2), wish("primary", 2, 1)]);
    assert!(is_held(&wanted, |rollout| rollout == 2), "the primary's rollout is paused");
    assert_eq!(answered(&wanted, &before, (4, false), |rollout| rollout == 2), Answer::Nothing);
    assert!(matches!(answered(&wanted, &before, (4, false), |_| true), Answer::Renew(_)));
    let mut back = wish("primary", 1, 1);
    back.allow_lower = true;
    assert!(!is_held(&desired(vec![back]), |_| false), "the way back is never held");
}

#[test]
fn whoever_has_an_assignment_from_before_keys_were_taken_back_gets_one_that_speaks_of_newer_metadata() {
    let before = desired(vec![wish("primary", 1, 1)]);
    let later = Desired { taken_back: Micros(NOW.0 + 1), ..before.clone() };
    assert_eq!(
        answered(&later, &before, (4, false), |_| true),
        Answer::Renew("keys or releases were taken back"),
        "though it has the newest"
    );
    assert_eq!(answered(&later, &before, (4, false), |_| false), Answer::Nothing, "held");
    let earlier = Desired { taken_back: NOW, ..before.clone() };
    assert_eq!(answered(&earlier, &before, (4, false), |_| true), Answer::Nothing);
    let old = Desired { reads: 2, ..before };
    let later = Desired { reads: 2, ..later };
    assert_eq!(answered(&later, &old, (4, false), |_| true), Answer::Nothing, "its form has no number");
}

#[test]
fn an_assignment_that_is_still_to_be_taken_does_not_run_out() {
    let wanted = desired(vec![wish("primary", 1, 1)]);
    let device = DeviceId::new("edge-1").unwrap();
    let head = AuditHead { number: 1, hash: Sha256([0; 32]) };
    let assignment = wanted.assignment(&device, Generation(4), (head, 1), NOW);
    let signed = Signed { assignment: &assignment, by_present_key: true };
    let look = |days: i64, generation, unfinished| {
        let said = Said { generation: Generation(generation), asks: false, unfinished };
        answer((&wanted, &wanted), signed, said, |_| true, Micros(NOW.0 + days * Micros::DAY))
    };
    let after = |days, generation| look(days, generation, false);
    assert_eq!((after(19, 3), after(20, 3)), (Answer::Again, Answer::Renew("it ends soon")));
    assert_eq!(after(30, 3), Answer::Renew("it had expired"));
    assert_eq!(after(30, 4), Answer::Nothing, "what was carried out needs no renewal");
    let on_the_way = |days| look(days, 4, true);
    assert_eq!((on_the_way(19), on_the_way(20)), (Answer::Nothing, Answer::Renew("it ends soon")));
    assert_eq!(on_the_way(30), Answer::Renew("it had expired"), "accepted is not carried out");
}

#[test]
fn an_assignment_is_carried_out_when_every_release_is_committed_or_given_up() {
    let wanted = desired(vec![wish("challenger-b", 3, 2), wish("primary", 2, 1)]);
    let head = AuditHead { number: 1, hash: Sha256([0; 32]) };
    let mut assignment = wanted.assignment(&DeviceId::new("edge-1").unwrap(), Generation(4), (head, 1), NOW);
    let package = |version: u32| PackageRef { version: VersionNumber(version), sha256: Sha256([version as u8; 32]) };
    let has = |role: &str, committed: Option<u32>, undone: Option<u32>| {
        let undone = undone.map(|version| (package(version), "because".to_owned()));
        LineReport { committed: committed.map(package), undone, ..line_report(role) }
    };
    let unfit = |version: u32| Unfit {
        line: LineName::new("fraud").unwrap(),
        role: Role::primary(),
        package: package(version),
        reasons: vec!["it needs 64 MiB of memory, the machine has 32 MiB".to_owned()],
    };
    let open = |assignment: &Assignment, primary: LineReport, unfit: Vec<Unfit>| {
        is_unfinished(assignment, &report(4, vec![has("challenger-b", Some(3), None), primary], unfit))
    };
    assert!(!open(&assignment, has("primary", Some(2), None), Vec::new()), "it runs both");
    assert!(open(&assignment, has("primary", Some(1), None), Vec::new()), "still on its way");
    assert!(open(&assignment, has("primary", None, None), Vec::new()));
    assert!(!open(&assignment, has("primary", Some(1), Some(2)), Vec::new()), "it failed its trial");
    assert!(open(&assignment, has("primary", Some(1), Some(7)), Vec::new()), "it gave up another");
    assert!(open(&assignment, has("primary", Some(1), Some(2)), vec![unfit(2)]), "a newer agent may run it");
    assert!(!open(&assignment, has("primary", Some(1), Some(2)), vec![unfit(7)]));
    assert!(!open(&assignment, has("primary", Some(5), None), Vec::new()), "it may not go below");
    let AssignmentV3 { desired, .. } = match &mut assignment {
        Assignment::V3(third) => third,
        other => panic!("{other:?}"),
    };
    desired.lines[1].allow_lower = true;
    assert!(open(&assignment, has("primary", Some(5), None), Vec::new()), "it is ordered back");
    let alone = report(4, vec![has("primary", Some(2), None)], Vec::new());
    assert!(is_unfinished(&assignment, &alone), "one role of two");
}

#[test]
fn a_way_back_brings_nothing_along_of_a_rollout_that_may_not_install_and_is_said_until_it_arrives() {
    let wanted = desired(vec![wish("challenger-b", 3, 2), wish("primary", 2, 1)]);
    let paused = |rollout| rollout != 1;
    let had = wish("primary", 1, 0).release;
    let said = wanted.sayable(&[], paused, |_, _| Some(had.clone()));
    assert_eq!((said.wishes.len(), &said.wishes[1].release), (2, &had));
    assert_eq!(wanted.sayable(&[], paused, |_, _| None).wishes, wanted.wishes[..1], "it had nothing");
    let mut has = LineReport { committed: None, ..line_report("primary") };
    assert_eq!(wanted.sayable(&[has.clone()], paused, |_, _| None).wishes.len(), 1);
    has.committed = Some(PackageRef { version: VersionNumber(2), sha256: wanted.wishes[1].release.sha256 });
    assert_eq!(wanted.sayable(&[has], paused, |_, _| None), wanted, "what it has it keeps");
    // The challenger's end was signed while the primary is paused, and did not arrive.
    let (wanted, signed) = (desired(vec![wish("primary", 2, 1)]), desired(Vec::new()));
    assert_eq!(answered(&wanted, &signed, (3, false), |_| false), Answer::Again);
    assert_eq!(answered(&wanted, &signed, (3, true), |_| false), Answer::Nothing, "no trial now");
    assert_eq!(answered(&wanted, &signed, (4, false), |_| false), Answer::Nothing);
    assert!(matches!(answered(&wanted, &signed, (4, false), |_| true), Answer::Renew(_)), "it goes on");
}

#[test]
fn generations_go_on_above_what_devices_report_as_far_as_that_can_be() {
    assert_eq!(next_generation(Generation(4), Generation(2)), Generation(5));
    assert_eq!(next_generation(Generation(4), Generation(90)), Generation(91));
    assert_eq!(next_generation(Generation(4), Generation(u64::MAX)), Generation(5));
}

#[test]
fn what_a_device_had_is_what_it_has_for_good_else_what_it_was_assigned_before() {
    let (wanted, before) = (wish("primary", 3, 1), wish("primary", 1, 0).release);
    let other = wish("primary", 2, 0).release;
    let committed = |release: &ReleaseRef| Some(PackageRef { version: release.version, sha256: release.sha256 });
    let taken = Taken { wave: 0, at: NOW, before: Some(before.clone()), rolled_back: None };
    let releases = [before.clone(), other.clone(), wanted.release.clone()];
    let had = |committed, taken| had(&wanted, committed, taken, &releases);
    assert_eq!(had(committed(&other), Some(&taken)), Some(other.clone()));
    assert_eq!(had(committed(&wish("primary", 9, 0).release), Some(&taken)), Some(before.clone()), "unknown here");
    assert_eq!(had(None, Some(&taken)), Some(before.clone()));
    assert_eq!(had(None, None), None);
    let same = Taken { before: Some(wanted.release.clone()), ..taken };
    assert_eq!(had(None, Some(&same)), None, "the release that is held is not said");
}
