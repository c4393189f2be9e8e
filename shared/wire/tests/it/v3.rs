//! Exact bytes of what came with version 3. DO NOT EDIT: devices in the field write and read these bytes.
//! A change of form is a new version with a file of its own.

use tributary_wire::file::{FileAnswer, FileRequest};
use tributary_wire::*;

#[track_caller]
fn check<T: PartialEq + std::fmt::Debug>(message: &T, encoded: &[u8], decoded: T, bytes: &str) {
    let found: String = encoded.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(found, bytes);
    assert_eq!(&decoded, message);
}

fn line() -> LineName {
    LineName::new("card-fraud").unwrap()
}

#[test]
fn assignment() {
    let desired = AssignmentV1 {
        device: DeviceId::new("edge-1").unwrap(),
        generation: Generation(4),
        issued: Micros(1),
        expires: Micros(2),
        lines: vec![],
        flags: vec![],
    };
    let audit = AuditHead { number: 300, hash: Sha256([0xee; 32]) };
    let share = ChallengerShare { line: line(), role: Role::new("challenger-b").unwrap(), per_10_000: 500 };
    let sampling = SamplingPolicy {
        number: 9,
        random: 20_000,
        uncertain: Some(Uncertain { band: 50_000, share: 500_000 }),
        rare: Some(Rare { at_most: 10_000, share: 1_000_000 }),
        day_bytes: Some(1 << 20),
        keep_seconds: Some(86_400),
        outbox_bytes: None,
    };
    let shares = vec![share.clone()];
    let third = AssignmentV3 { desired: desired.clone(), audit, snapshot: 7, shares, sampling: Some(sampling.clone()) };
    let assignment = Assignment::V3(third);
    let bytes = assignment.encode();
    check(&assignment, &bytes, Assignment::decode(&bytes).unwrap(), ASSIGNMENT);
    assert_eq!((assignment.desired(), assignment.audit()), (&desired, Some(audit)));
    assert_eq!((assignment.snapshot(), assignment.shares()), (7, &[share][..]));
    assert_eq!(assignment.sampling(), Some(&sampling));
    let second = Assignment::V2(AssignmentV2 { desired, audit });
    assert_eq!((second.snapshot(), second.shares(), second.sampling()), (0, &[][..], None));
}

#[test]
fn report() {
    let base = ReportV1 {
        number: 1,
        incarnation: Incarnation(2),
        stamp: Stamp { boot: 3, monotonic: 4, wall: Micros(5), clock: ClockState::Synchronised },
        reads: 3,
        agent: "0.1.0".into(),
        labels: vec![],
        generation: Generation(6),
        asks: false,
        lines: vec![],
        snapshot: None,
        health: Health { ok: true, ..Health::default() },
        resources: Resources::default(),
    };
    let metadata = MetadataVersions { root: 1, timestamp: 300, snapshot: 3, targets: 4 };
    let package = PackageRef { version: VersionNumber(2), sha256: Sha256([0xab; 32]) };
    let unfit = Unfit { line: line(), role: Role::primary(), package, reasons: vec!["no".into()] };
    let sampling = SamplingReport {
        number: 9,
        limited: true,
        kept: 1,
        left_out: 300,
        uncovered: 2,
        events_left_out: 3,
        day_bytes: 4,
    };
    let stream = StreamName::new("observations").unwrap();
    let dropped = vec![DroppedRecords { stream, reason: LossReason::Age, records: 5 }];
    let withheld = Withheld { sampling, dropped, problem: Some("no".into()) };
    let held = link::Held::Reverted { version: 3 };
    let holds = |kind| Some(link::Holds { kind, version: 2, rollback: 1, state: held });
    let node = NodeReport {
        node: "pump-1".into(),
        there: true,
        kind: Some("mps2".into()),
        firmware: Some("0.1.0".into()),
        starts: Some(2),
        health: Some(link::Health { sensor: link::Sensor::Stuck, samples: 300, ..link::Health::default() }),
        model: holds(link::BlobKind::Model),
        image: holds(link::BlobKind::Firmware),
        anomalies: 4,
        lost: 5,
        damaged: 6,
        crash: Some("a".into()),
        trouble: Some("b".into()),
    };
    let report = Report::V2(ReportV2 {
        base: base.clone(),
        metadata: Some(metadata),
        unfit: vec![unfit.clone()],
        withheld: withheld.clone(),
        held: vec![Held { stream: StreamName::new("events").unwrap(), first: SequenceNumber(300) }],
        audit: Some(AuditHead { number: 7, hash: Sha256([0xcd; 32]) }),
        nodes: vec![node.clone()],
    });
    let bytes = report.encode();
    check(&report, &bytes, Report::decode(&bytes).unwrap(), REPORT);
    assert_eq!((report.base(), report.metadata(), report.unfit()), (&base, Some(metadata), &[unfit][..]));
    assert_eq!(report.withheld(), Some(&withheld));
    assert_eq!(report.nodes(), [node]);
    assert_eq!((report.held().len(), report.audit().map(|head| head.number)), (1, Some(7)));
    let first = Report::V1(base.clone());
    assert_eq!((first.base(), first.metadata(), first.unfit()), (&base, None, &[][..]));
}

#[test]
fn a_gap_with_times() {
    let lost = |reason, span| Lost { reason, records: 300, span };
    let gap = BatchBody::GapV2 {
        to: SequenceNumber(7),
        lost: vec![
            lost(LossReason::DiskBudget, Some((Micros(-1), Micros(64)))),
            lost(LossReason::Corrupt, None),
            lost(LossReason::Age, None),
        ],
    };
    let bytes = gap.encode();
    check(&gap, &bytes, BatchBody::decode(&bytes, 0).unwrap(), GAP);
}

#[test]
fn files() {
    let request = FileRequest::V1 { path: "metadata/timestamp.json".into(), start: 300 };
    let encoded = request.encode();
    check(&request, &encoded, FileRequest::decode(&encoded).unwrap(), REQUEST);
    let answers =
        [FileAnswer::Found { length: 70_000, start: 300 }, FileAnswer::NotFound, FileAnswer::Refused("no".into())];
    for (answer, bytes) in answers.into_iter().zip(ANSWERS) {
        let encoded = answer.encode();
        check(&answer, &encoded, FileAnswer::decode(&encoded).unwrap(), bytes);
    }
}

const ASSIGNMENT: &str = "0206656467652d310402040000ac02eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee\
    07010a636172642d66726175640c6368616c6c656e6765722d62f40301\
    09a09c0101d08603a0c21e01904ec0843d018080400180a30500";
const REPORT: &str = "01010203040a000305302e312e30000600000001000000000000000101ac020304010a636172642d6672617564\
    077072696d61727902abababababababababababababababababababababababababababababababab01026e6f0901\
    01ac02020304010c6f62736572766174696f6e73020501026e6f\
    01066576656e7473ac020107cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd010670756d702d310101046d7073320105302e312e300102010200ac0200000000000000010002010203010102010203040506010161010162";
const GAP: &str = "02070300ac020101800101ac020002ac0200";
const REQUEST: &str = "00176d657461646174612f74696d657374616d702e6a736f6eac02";
const ANSWERS: [&str; 3] = ["00f0a204ac02", "01", "02026e6f"];
