//! Exact bytes of what came with version 2. DO NOT EDIT: devices in the field write and read these bytes.
//! A change of form is a new version with a file of its own.

use tributary_wire::*;

#[track_caller]
fn check<T: PartialEq + std::fmt::Debug>(message: &T, encoded: &[u8], decoded: T, bytes: &str) {
    let found: String = encoded.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(found, bytes);
    assert_eq!(&decoded, message);
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
    let assignment = Assignment::V2(AssignmentV2 { desired: desired.clone(), audit });
    let bytes = assignment.encode();
    check(&assignment, &bytes, Assignment::decode(&bytes).unwrap(), ASSIGNMENT);
    assert_eq!((assignment.desired(), assignment.audit()), (&desired, Some(audit)));
    assert_eq!(Assignment::V1(desired.clone()).desired(), &desired);
    assert_eq!(Assignment::V1(desired).audit(), None);
}

#[test]
fn command() {
    let id = || CommandId::new("01k").unwrap();
    let command = |order| Command::V1(CommandV1 { id: id(), deadline: Micros(5), order });
    let orders = [Order::Logs { lines: 200 }, Order::Diagnostics, Order::Restart, Order::RotateKey];
    for ((order, name), bytes) in orders.into_iter().zip(Order::NAMES).zip(COMMANDS) {
        assert_eq!(order.name(), name);
        let command = command(order);
        let encoded = command.encode();
        check(&command, &encoded, Command::decode(&encoded).unwrap(), bytes);
    }
}

#[test]
fn command_result() {
    let outcomes = [
        Outcome::Done { media: "text/plain".into(), body: vec![1, 2] },
        Outcome::Failed("no".into()),
        Outcome::Refused("no".into()),
        Outcome::Expired,
    ];
    for (outcome, bytes) in outcomes.into_iter().zip(RESULTS) {
        let id = CommandId::new("01k").unwrap();
        let result = CommandResult::V1(CommandResultV1 { id, finished: Micros(6), outcome });
        let encoded = result.encode();
        check(&result, &encoded, CommandResult::decode(&encoded).unwrap(), bytes);
    }
}

const ASSIGNMENT: &str =
    "0106656467652d310402040000ac02eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee";
const COMMANDS: [&str; 4] = ["000330316b0a00c801", "000330316b0a01", "000330316b0a02", "000330316b0a03"];
const RESULTS: [&str; 4] =
    ["000330316b0c000a746578742f706c61696e020102", "000330316b0c01026e6f", "000330316b0c02026e6f", "000330316b0c03"];
