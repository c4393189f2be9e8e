//! Exact bytes of version 1 of the link to sensor nodes, as they go over the line. DO NOT EDIT: nodes in the field
//! write and read these bytes. A change of form is a new version with a file of its own.

use tributary_wire::link::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn name(text: &str) -> NodeName<'_> {
    NodeName::new(text).unwrap()
}

#[track_caller]
fn up(message: Up<'_>, bytes: &str) {
    let mut frame = [0; MAX_FRAME];
    let length = encode(&message, &mut frame).unwrap();
    assert_eq!(hex(&frame[..length]), bytes);
    let mut line = Deframer::default();
    let read = frame[..length].iter().find_map(|byte| line.push(*byte).map(|read| read.unwrap().to_vec())).unwrap();
    assert_eq!(Up::decode(&read).unwrap(), message);
}

#[track_caller]
fn down(message: Down<'_>, bytes: &str) {
    let mut frame = [0; MAX_FRAME];
    let length = encode(&message, &mut frame).unwrap();
    assert_eq!(hex(&frame[..length]), bytes);
    let mut line = Deframer::default();
    let read = frame[..length].iter().find_map(|byte| line.push(*byte).map(|read| read.unwrap().to_vec())).unwrap();
    assert_eq!(Down::decode(&read).unwrap(), message);
}

fn record(record: Record<'_>) -> Up<'_> {
    Up::V1(UpV1::Record { session: 300, number: 7, behind: 2, uptime: 1_000_000, record })
}

#[test]
fn handshake() {
    up(Up::Hello { lowest: 1, highest: 1, session: 0, node: name("pump-1") }, HELLO);
    down(Down::Who, WHO);
    down(Down::Welcome { version: 1, session: 300 }, WELCOME);
    down(Down::Refused(Refusal::Version { lowest: 2, highest: 3 }), REFUSED_VERSION);
    down(Down::Refused(Refusal::Name), REFUSED_NAME);
}

#[test]
fn records() {
    let about = About {
        kind: name("mps2"),
        firmware: (0, 1, 300),
        rate: 1024,
        window: 512,
        hop: 256,
        axes: 3,
        band_ends: Numbers::new([32, 256]),
        count: 598_550,
        threshold: Some(500),
        ticks: 25_000_000,
        starts: 1,
    };
    up(record(Record::About(about)), ABOUT);
    let features = Features {
        window: 9,
        axis: 2,
        mean: -5,
        rms: 1000,
        peak: 3000,
        crest: 196_608,
        kurtosis: 0,
        crossings: 40,
        bands: Numbers::new([1, 200, 30_000]),
        score: Some(77),
        temperature: Some(-250),
    };
    up(record(Record::Features(features)), FEATURES);
    up(
        record(Record::Features(Features { score: None, temperature: None, bands: Numbers::new([]), ..features })),
        PLAIN,
    );
    let raw = RawPart { window: 9, axis: 0, part: 1, of: 8, samples: &[1, 0, 0xff, 0xff] };
    assert_eq!(raw.samples().collect::<Vec<_>>(), [1, -1]);
    up(record(Record::Raw(raw)), RAW);
    let health = Health {
        sensor: Sensor::Stuck,
        sensor_errors: 1,
        samples: 2,
        overrun: 3,
        windows: 4,
        overwritten: 5,
        refused: 6,
        busiest: 7,
        stack: 8,
        stack_untouched: 9,
    };
    up(record(Record::Health(health)), HEALTH);
    let crash = Crash { kind: CrashKind::Watchdog, uptime: 5, file: "main.rs", place: 200 };
    up(record(Record::Crash(crash)), CRASH);
    up(record(Record::Done { order: 4, outcome: Outcome::OutOfRange }), DONE);
}

#[test]
fn answers() {
    up(Up::V1(UpV1::Time { asked: -2, uptime: 300 }), TIME);
    up(Up::V1(UpV1::Blob { blob: 1, step: BlobStep::Next(128) }), BLOB_NEXT);
    up(Up::V1(UpV1::Blob { blob: 1, step: BlobStep::Complete }), BLOB_COMPLETE);
    up(Up::V1(UpV1::Blob { blob: 1, step: BlobStep::Refused(BlobProblem::Older) }), BLOB_REFUSED);
}

#[test]
fn what_the_agent_says() {
    down(Down::V1(DownV1::Ack { session: 300, through: 7, scattered: 5 }), ACK);
    down(Down::V1(DownV1::Time { asked: 64 }), TIME_ASKED);
    let order = |order| Down::V1(DownV1::Order { session: 300, number: 1, order });
    down(order(Order::Rate(2048)), RATE);
    down(order(Order::Threshold(9)), THRESHOLD);
    down(order(Order::SendRaw { windows: 2 }), SEND_RAW);
    down(order(Order::Report), REPORT);
    down(order(Order::Restart), RESTART);
    down(Down::V1(DownV1::Offer { blob: 1, kind: BlobKind::Firmware, length: 256, checksum: 0x1234_5678 }), OFFER);
    down(Down::V1(DownV1::Part { blob: 1, offset: 128, bytes: &[0, 1, 0] }), PART);
}

const HELLO: &str = "010301010c0670756d702d311f3330d700";
const WHO: &str = "010551537d5200";
const WELCOME: &str = "090101ac0269b88e8600";
const REFUSED_VERSION: &str = "02020702035cab15c300";
const REFUSED_NAME: &str = "0702013fc44f2400";
const ABOUT: &str = "020108ac020702c0843d06046d7073321e01ac02800880048002030220800296c42401f403c0f0f50b011049138100";
const FEATURES: &str = "020113ac020702c0843d01090209e807b81780800c12280301c801b0ea01014d01f3036172ffe000";
const PLAIN: &str = "020113ac020702c0843d01090209e807b81780800c0228010105b85edc4e00";
const RAW: &str = "02010aac020702c0843d0209050108040107ffffab52472b00";
const HEALTH: &str = "020117ac020702c0843d030201020304050607080991eacbbe00";
const CRASH: &str = "020119ac020702c0843d040205076d61696e2e7273c801757e0f7a00";
const DONE: &str = "02010fac020702c0843d0504018dc607a900";
const TIME: &str = "0a010103ac023ab8e5fc00";
const BLOB_NEXT: &str = "04010201078001891bd51c00";
const BLOB_COMPLETE: &str = "090102010106a8843b00";
const BLOB_REFUSED: &str = "0a0102010204970f9a8700";
const ACK: &str = "020309ac020705a5b7866b00";
const TIME_ASKED: &str = "09030180017a29ac8600";
const RATE: &str = "060302ac020107801036aa9f8a00";
const THRESHOLD: &str = "0c0302ac020101099898a9f900";
const SEND_RAW: &str = "0c0302ac020102023a9bc75400";
const REPORT: &str = "0b0302ac02010327deca5400";
const RESTART: &str = "090302ac020104ccba028000";
const OFFER: &str = "10030301018002f8acd1910128c0ca6100";
const PART: &str = "070304018001030201051b03cdbe00";
