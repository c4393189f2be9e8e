//! Bytes from outside that are not a message give an error that says what was wrong, and never panic.

use tributary_wire::*;

fn batch() -> Vec<u8> {
    let header = BatchHeaderV1 {
        incarnation: Incarnation(1),
        stream: StreamName::new("events").unwrap(),
        sequence: SequenceNumber(1),
        rows: 1,
        encoding: BodyEncoding::Plain,
        body_bytes: 4,
        body_crc: 0,
        stamp: Stamp { boot: 1, monotonic: 2, wall: Micros(3), clock: ClockState::Synchronised },
    };
    Batch::new(header, vec![1, 2, 3, 4]).encode()
}

#[test]
fn a_batch_cut_anywhere_in_its_header_is_refused() {
    let bytes = batch();
    for length in 0..bytes.len() - 4 {
        assert!(Batch::decode(&bytes[..length]).is_err(), "cut at {length}");
    }
}

#[test]
fn one_changed_byte_is_found_in_header_and_body() {
    let bytes = batch();
    for place in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[place] ^= 0x10;
        let refused = match Batch::decode(&changed) {
            Err(_) => true,
            Ok((header, body)) => Batch::check_body(&header, body).is_err(),
        };
        assert!(refused, "byte {place}");
    }
}

#[test]
fn columns_that_disagree_with_their_schema_are_named() {
    let field = |kind, nullable| Field {
        name: "x".into(),
        kind,
        unit: String::new(),
        nullable,
        sensitivity: Sensitivity::Keep,
    };
    let refusal = |kind, nullable, column, rows| {
        let body = BatchBody::Records { schema: vec![field(kind, nullable)], columns: vec![column] };
        BatchBody::decode(&body.encode(), rows).unwrap_err().to_string()
    };
    let one = || Column::Int(vec![Some(1)]);
    assert!(refusal(FieldType::Text, true, one(), 1).contains("not of the type"));
    assert!(refusal(FieldType::Int, true, one(), 2).contains("another number of values"));
    assert!(refusal(FieldType::Int, false, Column::Int(vec![None]), 1).contains("missing"));
    let body = BatchBody::Records { schema: vec![], columns: vec![one()] };
    assert!(BatchBody::decode(&body.encode(), 1).is_err());
}

#[test]
fn bytes_after_a_message_are_refused() {
    let mut bytes = Ack::V1(AckV1 { streams: vec![] }).encode();
    bytes.push(0);
    assert_eq!(Ack::decode(&bytes).unwrap_err().to_string(), "1 bytes left after the acknowledgement");
}

#[test]
fn no_bytes_make_a_decoder_panic() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let _ = Batch::decode(bytes);
        let _ = BatchBody::decode(bytes, 3);
        let _ = Ack::decode(bytes);
        let _ = Report::decode(bytes);
        let _ = SignedAssignment::decode(bytes);
        let _ = Assignment::decode(bytes);
        let _ = FeatureSnapshot::decode(bytes);
        let _ = Command::decode(bytes);
        let _ = CommandResult::decode(bytes);
    });
}
