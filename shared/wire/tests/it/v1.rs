//! Exact bytes of version 1 of every message. DO NOT EDIT: devices in the field write and read these bytes.
//! A change of form is a new version with a file of its own.

use tributary_wire::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks_exact(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[track_caller]
fn check<T: PartialEq + std::fmt::Debug>(message: &T, encoded: Vec<u8>, decode: impl Fn(&[u8]) -> T, bytes: &str) {
    let found: String = encoded.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(encoded, hex(bytes), "encodes to {found}");
    assert_eq!(&decode(&hex(bytes)), message);
}

fn stamp() -> Stamp {
    Stamp { boot: 7, monotonic: 1_000, wall: Micros(1_700_000_000_000_000), clock: ClockState::Unsynchronised }
}

fn package(version: u32) -> PackageRef {
    PackageRef { version: VersionNumber(version), sha256: Sha256([0xab; 32]) }
}

#[test]
fn batch() {
    let body = BatchBody::Records {
        schema: vec![
            Field {
                name: "amount".into(),
                kind: FieldType::Double,
                unit: "EUR".into(),
                nullable: true,
                sensitivity: Sensitivity::Keep,
            },
            Field {
                name: "at".into(),
                kind: FieldType::Time,
                unit: "us".into(),
                nullable: false,
                sensitivity: Sensitivity::Keep,
            },
        ],
        columns: vec![Column::Double(vec![Some(1.5), None]), Column::Time(vec![Some(Micros(1)), Some(Micros(-1))])],
    };
    check(&body, body.encode(), |bytes| BatchBody::decode(bytes, 2).unwrap(), BODY);
    let header = BatchHeaderV1 {
        incarnation: Incarnation(1),
        stream: StreamName::new("events").unwrap(),
        sequence: SequenceNumber(300),
        rows: 2,
        encoding: BodyEncoding::Plain,
        body_bytes: body.encode().len() as u32,
        body_crc: 0,
        stamp: stamp(),
    };
    let batch = Batch::new(header, body.encode());
    check(
        &batch,
        batch.encode(),
        |bytes| {
            let (header, body) = Batch::decode(bytes).unwrap();
            Batch::check_body(&header, body).unwrap();
            Batch { header: BatchHeader::V1(header), body: body.to_vec() }
        },
        BATCH,
    );
}

#[test]
fn gap() {
    let body = BatchBody::Gap {
        to: SequenceNumber(9),
        dropped: vec![
            Dropped { reason: DropReason::DiskBudget, records: 512 },
            Dropped { reason: DropReason::Corrupt, records: 1 },
        ],
    };
    check(&body, body.encode(), |bytes| BatchBody::decode(bytes, 0).unwrap(), GAP);
}

#[test]
fn every_column_type() {
    let columns = vec![
        Column::Bool(vec![Some(true)]),
        Column::Int(vec![Some(-2)]),
        Column::Double(vec![Some(0.5)]),
        Column::Float(vec![Some(0.25)]),
        Column::Text(vec![Some("é".into())]),
        Column::Bytes(vec![Some(vec![1, 2])]),
        Column::Time(vec![Some(Micros(5))]),
        Column::FloatList(vec![Some(vec![1.0, 2.0])]),
    ];
    let field = |column: &Column| Field {
        name: "c".into(),
        kind: column.kind(),
        unit: String::new(),
        nullable: false,
        sensitivity: Sensitivity::Hash,
    };
    let body = BatchBody::Records { schema: columns.iter().map(field).collect(), columns };
    check(&body, body.encode(), |bytes| BatchBody::decode(bytes, 1).unwrap(), COLUMNS);
}

#[test]
fn ack() {
    let ack = Ack::V1(AckV1 {
        streams: vec![StreamAck {
            stream: StreamName::new("observations").unwrap(),
            incarnation: Incarnation(2),
            through: SequenceNumber(128),
            scattered: vec![SequenceNumber(130)],
            quarantined: vec![SequenceNumber(127)],
            window: 16,
        }],
    });
    check(&ack, ack.encode(), |bytes| Ack::decode(bytes).unwrap(), ACK);
}

#[test]
fn report() {
    let report = Report::V1(ReportV1 {
        number: 3,
        incarnation: Incarnation(1),
        stamp: stamp(),
        reads: 1,
        agent: "0.1.0".into(),
        labels: vec![("site".into(), "lyon".into())],
        generation: Generation(4),
        asks: true,
        lines: vec![LineReport {
            line: LineName::new("card-fraud").unwrap(),
            role: Role::primary(),
            state: UpdaterState::Staged,
            committed: Some(package(1)),
            previous: None,
            candidate: Some(package(2)),
            undone: Some((package(3), "errors".into())),
            error: None,
            engine: "tract".into(),
            trial: TrialReport { predictions: 10, errors: 1, latency_p99_us: 250, output_mean: 0.5 },
        }],
        snapshot: Some((SnapshotNumber(5), Micros(6))),
        health: Health { ok: false, problems: vec!["p".into()], refused: vec![("late".into(), 2)], dropped: 0 },
        resources: Resources { memory_bytes: 1 << 20, outbox_batches: 1, outbox_bytes: 2, events: 3 },
    });
    check(&report, report.encode(), |bytes| Report::decode(bytes).unwrap(), REPORT);
}

#[test]
fn assignment() {
    let assignment = Assignment::V1(AssignmentV1 {
        device: DeviceId::new("edge-1").unwrap(),
        generation: Generation(4),
        issued: Micros(1),
        expires: Micros(2),
        lines: vec![LineAssignment {
            line: LineName::new("card-fraud").unwrap(),
            role: Role::primary(),
            release: ReleaseRef { version: VersionNumber(2), length: 4096, sha256: Sha256([0xcd; 32]) },
            allow_lower: false,
        }],
        flags: vec![("k".into(), "v".into())],
    });
    check(&assignment, assignment.encode(), |bytes| Assignment::decode(bytes).unwrap(), ASSIGNMENT);
    let signed = SignedAssignment { payload: vec![1, 2, 3], key_id: [9; 8], signature: vec![7; 4] };
    check(&signed, signed.encode(), |bytes| SignedAssignment::decode(bytes).unwrap(), SIGNED);
}

#[test]
fn snapshot() {
    let snapshot = FeatureSnapshot::V1(FeatureSnapshotV1 {
        view: "card-risk".into(),
        view_version: 1,
        number: SnapshotNumber(2),
        taken: Micros(86_400_000_000),
        lifetime: 1_000_000,
        part: 0,
        parts: 1,
        entity: "terminal_id".into(),
        features: vec!["f".into()],
        rows: vec![
            SnapshotRow { key: EntityKey::Int(12), values: vec![0.5] },
            SnapshotRow { key: EntityKey::Text("a".into()), values: vec![1.0] },
        ],
    });
    check(&snapshot, snapshot.encode(), |bytes| FeatureSnapshot::decode(bytes).unwrap(), SNAPSHOT);
}

const BODY: &str = "
    000206616d6f756e740203455552010002617406027573000002020201000000000000f83f00060201020101";
const BATCH: &str = "
    1f000001066576656e7473ac0202002cb1cf9fce0e07e8078080f28183898506010f20d216000206616d6f756e7402034555
    52010002617406027573000002020201000000000000f83f00060201020101";
const GAP: &str = "
    0109020080040101";
const COLUMNS: &str = "
    0008016300000001016301000001016302000001016303000001016304000001016305000001016306000001016307000001
    080001010101010103020101000000000000e03f0301010000803e04010102c3a90501010201020601010a07010102000080
    3f00000040";
const ACK: &str = "
    00010c6f62736572766174696f6e73028001018201017f10";
const REPORT: &str = "
    00030107e8078080f28183898506010105302e312e30010473697465046c796f6e0401010a636172642d6672617564077072
    696d617279020101abababababababababababababababababababababababababababababababab000102ababababababab
    ababababababababababababababababababababababababab0103ababababababababababababababababababababababab
    ababababababababab066572726f7273000574726163740a01fa01000000000000e03f01050c0001017001046c6174650200
    808040010203";
const ASSIGNMENT: &str = "
    0006656467652d31040204010a636172642d6672617564077072696d617279028020cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd
    cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd0001016b0176";
const SIGNED: &str = "
    0301020309090909090909090407070707";
const SNAPSHOT: &str = "
    0009636172642d7269736b01028080bbdd830580897a00010b7465726d696e616c5f6964010166020018010000003f010161
    010000803f";
