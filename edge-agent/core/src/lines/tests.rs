mod explorer;

use std::time::Duration;

use tributary_release::{Probation, SigningKey, VerifyingKeys, sign_assignment};
use tributary_wire::{
    AssignmentV3, AuditHead, ChallengerShare, LineAssignment, Micros, ReleaseRef, SignedAssignment, VersionNumber,
    WIRE_VERSION,
};

use super::*;
use tributary_wire::AssignmentV1;

pub(super) const PROBATION: Probation = Probation {
    min_predictions: 10,
    max_error_share: 0.1,
    max_latency_p99_us: 1000,
    output_mean_low: 0.0,
    output_mean_high: 1.0,
    timeout_s: 60,
};

fn key() -> SigningKey {
    SigningKey::generate([7; 32])
}

pub(super) fn line() -> LineName {
    LineName::new("fraud").unwrap()
}

pub(super) fn challenger() -> Of {
    (line(), Role::new("challenger-b").unwrap())
}

fn release(version: u32) -> ReleaseRef {
    ReleaseRef { version: VersionNumber(version), length: 9, sha256: Sha256([version as u8; 32]) }
}

fn now() -> Now {
    Now { wall: Micros(1_000), monotonic: Duration::ZERO }
}

pub(super) fn believed(snapshot: u64) -> Believed {
    Believed { keys: VerifyingKeys::new([key().verifying_key()]), snapshot }
}

fn signed(generation: u64, primary: u32, beside: Option<u32>, snapshot: u64) -> Vec<u8> {
    let mut lines = vec![(Role::primary(), primary)];
    lines.extend(beside.map(|version| (challenger().1, version)));
    sign(generation, lines, snapshot)
}

/// With a version for each of these roles.
pub(super) fn sign(generation: u64, roles: Vec<(Role, u32)>, snapshot: u64) -> Vec<u8> {
    let beside = roles.iter().filter(|(role, _)| *role == challenger().1);
    let shares =
        beside.map(|(role, _)| ChallengerShare { line: line(), role: role.clone(), per_10_000: 100 }).collect();
    let desired = AssignmentV1 {
        device: DeviceId::new("edge-1").unwrap(),
        generation: Generation(generation),
        issued: Micros(1_000),
        expires: Micros(2_000_000_000),
        lines: roles
            .into_iter()
            .map(|(role, version)| LineAssignment { line: line(), role, release: release(version), allow_lower: false })
            .collect(),
        flags: Vec::new(),
    };
    let audit = AuditHead { number: generation, hash: Sha256([1; 32]) };
    let assignment = AssignmentV3 { desired, audit, snapshot, shares, sampling: None };
    sign_assignment(&key(), &Assignment::V3(assignment)).encode()
}

fn start() -> Lines {
    start_with(Record::default())
}

/// With what is stored of the primary role.
fn start_with(record: Record) -> Lines {
    let (lines, actions) = start_on(vec![((line(), Role::primary()), record)], now());
    assert!(matches!(actions[..], [Action::Serve { .. }]), "{actions:?}");
    lines
}

/// With these records.
pub(super) fn start_on(records: Vec<(Of, Record)>, now: Now) -> (Lines, Vec<Action>) {
    let settings = LinesSettings {
        device: DeviceId::new("edge-1").unwrap(),
        lines: vec![line()],
        updater: UpdaterSettings::default(),
        seed: 1,
    };
    Lines::recover(settings, records, now)
}

fn arrives(lines: &mut Lines, signed: Vec<u8>) -> Vec<Action> {
    lines.handle(now(), Input::Assigned { signed, believed: believed(5) })
}

fn keep(generation: u64, signed: Vec<u8>) -> Action {
    Action::Keep { signed, generation: Generation(generation) }
}

/// As an older agent leaves it: without the generation by itself.
fn of_old(assignment: Option<&[u8]>) -> Remembered {
    Remembered { assignment: assignment.map(<[u8]>::to_vec), ..Remembered::default() }
}

fn fetches(actions: &[Action]) -> Vec<u32> {
    let version = |action: &Action| match action {
        Action::Persist { record, .. } => record.candidate.release().map(|release| release.version.0),
        _ => None,
    };
    actions.iter().filter_map(version).collect()
}

#[test]
fn an_assignment_counts_only_once_it_is_durable() {
    let mut lines = start();
    let actions = arrives(&mut lines, signed(1, 1, None, 5));
    assert_eq!(actions, [keep(1, signed(1, 1, None, 5))]);
    assert_eq!(lines.generation(), Generation(0), "a restart now would not know of it");
    let actions = lines.handle(now(), Input::NotKept { reason: "the disk is full".into() });
    assert_eq!(actions, [Action::Report]);
    assert!(lines.problem().unwrap().contains("the disk is full"));
    // The hub answers that report with it once more.
    arrives(&mut lines, signed(1, 1, None, 5));
    assert_eq!(lines.handle(now(), Input::NotKept { reason: "the disk is still full".into() }), [], "it was said");

    arrives(&mut lines, signed(1, 1, None, 5));
    let actions = lines.handle(now(), Input::Kept);
    assert_eq!((lines.generation(), lines.problem(), fetches(&actions)), (Generation(1), None, vec![1]));
    assert!(actions.contains(&Action::Raise(Micros(1_000))));
    assert_eq!(lines.audit().map(|head| head.number), Some(1));
    assert_eq!(lines.hub_reads(), WIRE_VERSION);
}

#[test]
fn one_that_comes_while_another_is_on_its_way_to_the_disk_waits_for_it() {
    let mut lines = start();
    arrives(&mut lines, signed(1, 1, None, 5));
    assert_eq!(arrives(&mut lines, signed(2, 2, None, 5)), []);
    let actions = lines.handle(now(), Input::Kept);
    assert!(actions.contains(&keep(2, signed(2, 2, None, 5))), "{actions:?}");
    lines.handle(now(), Input::Kept);
    assert_eq!(lines.generation(), Generation(2));
}

#[test]
fn newer_metadata_is_asked_for_once() {
    let mut lines = start();
    let ahead = signed(1, 1, None, 6);
    assert_eq!(arrives(&mut lines, ahead.clone()), [Action::Refresh(ahead.clone())]);
    // It was not to be had; the fetch will say so.
    let actions = lines.handle(now(), Input::Refreshed { signed: ahead.clone(), believed: believed(5) });
    assert_eq!(actions, [keep(1, ahead)]);
    let stranger = Believed::default();
    let actions = lines.handle(now(), Input::Refreshed { signed: signed(2, 1, None, 5), believed: stranger });
    assert_eq!(actions, [], "another one is on its way to the disk");
}

/// The hub answers a report with the assignment: were every refusal another, the two would go on at it without a pause.
#[test]
fn a_refusal_is_told_once_whatever_time_it_is() {
    let mut lines = start();
    let mut late = |seconds: i64| {
        let now = Now { wall: Micros(2_000_000_001 + seconds * Micros::SECOND), ..now() };
        lines.handle(now, Input::Assigned { signed: signed(1, 1, None, 5), believed: believed(5) })
    };
    assert_eq!((late(0), late(1)), (vec![Action::Report], vec![]));
    assert!(lines.problem().unwrap().contains("expired"), "{:?}", lines.problem());
}

#[test]
fn a_role_begins_with_what_is_stored_of_it_and_is_retired_when_nobody_wants_it() {
    let mut lines = start();
    arrives(&mut lines, signed(1, 1, Some(3), 5));
    let actions = lines.handle(now(), Input::Kept);
    assert!(actions.contains(&Action::Begin(challenger())));
    let actions = lines.handle(now(), Input::Began(challenger(), Box::default()));
    assert_eq!(fetches(&actions), [3]);
    let share = Share { role: challenger().1, per_10_000: 100, package: None };
    assert_eq!(lines.shares(&line()), [share], "on its way: it answers nothing");

    arrives(&mut lines, signed(2, 1, None, 5));
    let actions = lines.handle(now(), Input::Kept);
    assert!(actions.contains(&Action::Retire(challenger())));
    assert!(lines.updater(&challenger()).is_none());
    assert_eq!(lines.handle(now(), Input::Began(challenger(), Box::default())), [], "too late");
}

#[test]
fn files_of_roles_that_end_together_stay_until_no_record_names_them() {
    let other = (line(), Role::new("challenger-c").unwrap());
    let records =
        [challenger(), other.clone()].map(|of| (of, Record { committed: Some(release(3)), ..Record::default() }));
    let (mut lines, _) = start_on(records.into(), now());
    arrives(&mut lines, signed(1, 1, None, 5));
    let actions = lines.handle(now(), Input::Kept);
    let place = |wanted: &Action| actions.iter().position(|action| action == wanted);
    for ended in [challenger(), other] {
        let retired = place(&Action::Retire(ended));
        assert!(retired.is_some() && retired < place(&Action::Collect), "{actions:?}");
    }
}

#[test]
fn a_stored_assignment_of_a_key_that_is_trusted_no_more_counts_only_by_its_generation() {
    let mut lines = start();
    lines.recall(now(), &Believed::default(), &of_old(Some(&signed(7, 1, None, 5))));
    assert_eq!(lines.generation(), Generation(6));
    assert!(lines.problem().unwrap().contains("stored assignment"));
    assert_eq!(arrives(&mut lines, signed(6, 1, None, 5)), [Action::Report], "nobody goes back behind it");
    assert_eq!(arrives(&mut lines, signed(7, 1, None, 5)), [keep(7, signed(7, 1, None, 5))]);
}

#[test]
fn a_stored_assignment_that_rots_is_a_problem_and_lets_no_older_one_in() {
    use crate::updater::Wanted;
    let wanted =
        Wanted { generation: Generation(7), expires: Micros(2_000_000_000), release: release(1), allow_lower: false };
    let whole = signed(7, 1, None, 5);
    // A changed number must not count: nothing would ever be newer than the highest there is.
    let mut changed = SignedAssignment::decode(&whole).unwrap();
    changed.payload = SignedAssignment::decode(&signed(u64::MAX, 1, None, 5)).unwrap().payload;
    for rotten in [Some(whole[..9].to_vec()), Some(changed.encode()), None] {
        let mut lines =
            start_with(Record { wanted: Some(wanted.clone()), committed: Some(release(1)), ..Record::default() });
        lines.recall(now(), &believed(5), &of_old(rotten.as_deref()));
        assert_eq!(lines.generation(), Generation(6));
        assert!(lines.problem().unwrap().contains("stored assignment"), "{:?}", lines.problem());
        assert_eq!(arrives(&mut lines, signed(5, 1, None, 5)), [], "a replayed one");
        assert_eq!(arrives(&mut lines, whole.clone()), [keep(7, whole.clone())]);
        lines.handle(now(), Input::Kept);
        assert_eq!((lines.generation(), lines.problem()), (Generation(7), None));
    }
    let mut lines = start();
    lines.recall(now(), &believed(5), &Remembered::default());
    assert_eq!((lines.generation(), lines.problem()), (Generation(0), None), "a new device");
}

/// An assignment without wishes leaves no record that tells of it.
#[test]
fn the_generation_outlives_an_assignment_that_rots_is_lost_or_was_put_back() {
    let none = sign(7, Vec::new(), 5);
    let older = signed(5, 1, None, 5);
    let left = [(Some(none[..9].to_vec()), "read"), (None, "gone"), (Some(older.clone()), "generation 7 was accepted")];
    for (left, told) in left {
        let mut lines = start();
        let remembered = Remembered { generation: Some(Generation(7)), ..of_old(left.as_deref()) };
        lines.recall(now(), &believed(5), &remembered);
        assert_eq!(lines.generation(), Generation(6), "{told}");
        assert!(lines.problem().unwrap().contains(told), "{:?}", lines.problem());
        assert_eq!(arrives(&mut lines, older.clone()), [], "a replayed one");
        assert_eq!(arrives(&mut lines, none.clone()), [keep(7, none.clone())]);
        lines.handle(now(), Input::Kept);
        assert_eq!((lines.generation(), lines.problem()), (Generation(7), None));
    }
    // A state of an older agent says no more than its assignment, and one of both as much as the newer.
    for (generation, assignment) in [(None, 7), (Some(Generation(6)), 7), (Some(Generation(7)), 7)] {
        let mut lines = start();
        let remembered = Remembered { generation, ..of_old(Some(&signed(assignment, 1, None, 5))) };
        lines.recall(now(), &believed(5), &remembered);
        assert_eq!((lines.generation(), lines.problem()), (Generation(7), None), "{generation:?}");
    }
}

#[test]
fn a_trial_begins_only_under_an_assignment_whose_key_is_still_trusted() {
    use crate::updater::{Candidate, Doubt};
    let mut lines = start();
    let of = (line(), Role::primary());
    arrives(&mut lines, signed(1, 1, None, 5));
    lines.handle(now(), Input::Kept);
    let tell = |lines: &mut Lines, input| lines.handle(now(), Input::Line((line(), Role::primary()), input));
    tell(&mut lines, updater::Input::Persisted(1));
    tell(&mut lines, updater::Input::Fetched { sha256: release(1).sha256, probation: PROBATION });
    tell(&mut lines, updater::Input::Persisted(2));
    let later = Now { monotonic: Duration::from_secs(400), ..now() };
    let vouch = Action::Vouch { of: of.clone(), release: release(1) };
    assert_eq!(lines.handle(later, Input::Woken), [vouch]);
    let answer =
        |believed, chain| Input::Vouched { of: (line(), Role::primary()), sha256: release(1).sha256, believed, chain };
    let candidate = |lines: &Lines| lines.updater(&of).unwrap().record().candidate.clone();
    let stolen = Believed::default();
    lines.handle(later, answer(stolen, Ok(())));
    let error = lines.updater(&of).unwrap().report("").error.unwrap();
    assert!(error.contains("trusted no more"), "{error}");
    assert!(matches!(candidate(&lines), Candidate::Staged { .. }));
    let later = Now { monotonic: Duration::from_secs(500), ..now() };
    assert_eq!(lines.handle(later, Input::Woken).len(), 1, "asked again");
    let mut doubtful = lines.handle(later, answer(believed(5), Err(Doubt::Unclear("it has expired".into()))));
    assert!(matches!(candidate(&lines), Candidate::Fetching { .. }), "{doubtful:?}");
    doubtful.clear();
}
