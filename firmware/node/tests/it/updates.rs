//! A model over the line, its trial, its confirmation, and its end.

use std::cell::RefCell;
use std::rc::Rc;

use ed25519_dalek::{Digest, Sha512, Signer, SigningKey};
use embedded_storage::nor_flash::{ErrorType, NorFlash, ReadNorFlash};
use tributary_node::Action;
use tributary_node_simulation::{Misuse, RamFlash};
use tributary_signal::{Model, ModelPayload};
use tributary_slots::{Layout, Slots, Trusted};
use tributary_wire::link::{
    BLOB_PART, BlobKind, BlobProblem, BlobStep, Down, DownV1, Held, Holds, ImageHead, NodeName, blob_checksum,
};

use crate::bench::{Agent, Bench};

const INPUTS: usize = 12;
const BUILT_IN: &[u8] = include_bytes!("../../../boards/mps2/model.bin");
const PAGE: u32 = 4096;
const LAYOUT: Layout = Layout {
    journal: [0, PAGE],
    model: [2 * PAGE, 3 * PAGE],
    model_size: PAGE,
    firmware: [4 * PAGE, 5 * PAGE],
    firmware_size: PAGE,
};

fn key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

fn passes(payload: &[u8]) -> bool {
    ModelPayload::read(payload, INPUTS).is_ok_and(|payload| payload.passes())
}

fn blob(version: u32, wrong_case: bool) -> Vec<u8> {
    let mut model = BUILT_IN.to_vec();
    model[6..10].copy_from_slice(&version.to_le_bytes());
    let inputs: [u16; INPUTS] = std::array::from_fn(|at| 1000 + 37 * at as u16);
    let score = Model::read(&model, INPUTS).unwrap().score(&inputs) + u32::from(wrong_case);
    let mut payload = (model.len() as u16).to_le_bytes().to_vec();
    payload.extend(model);
    payload.extend(inputs.iter().flat_map(|input| input.to_le_bytes()));
    payload.extend(score.to_le_bytes());
    let mut hash = [0; 64];
    hash.copy_from_slice(&Sha512::digest(&payload));
    let (kind, node, length) = (BlobKind::Model, NodeName::new("bench").unwrap(), payload.len() as u32);
    let mut bytes = ImageHead { kind, node, version, rollback: 1, length, hash }.signed().to_vec();
    bytes.extend(key().sign(&bytes).to_bytes());
    bytes.extend(payload);
    bytes
}

/// Flash that outlives its node.
#[derive(Clone)]
struct Shared(Rc<RefCell<Vec<u8>>>);

impl ErrorType for Shared {
    type Error = Misuse;
}

impl ReadNorFlash for Shared {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Misuse> {
        RamFlash(&mut self.0.borrow_mut()).read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.0.borrow().len()
    }
}

impl NorFlash for Shared {
    const WRITE_SIZE: usize = 8;
    const ERASE_SIZE: usize = PAGE as usize;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Misuse> {
        RamFlash(&mut self.0.borrow_mut()).erase(from, to)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Misuse> {
        RamFlash(&mut self.0.borrow_mut()).write(offset, bytes)
    }
}

/// A life of a node over this flash.
fn start(flash: &Shared) -> Bench {
    let keys: &'static [[u8; 32]] = Box::leak(Box::new([key().verifying_key().to_bytes()]));
    let trusted = Trusted { keys, node: NodeName::new("bench").unwrap() };
    let mut slots = Slots::open(flash.clone(), LAYOUT, trusted, passes).unwrap();
    let payload: &'static mut [u8] = Box::leak(Box::new([0; 4096]));
    let model = match slots.boot(BlobKind::Model).unwrap() {
        Some(boot) => {
            let payload = &mut payload[..boot.length as usize];
            slots.read(boot.at, payload).unwrap();
            ModelPayload::read(payload, INPUTS).unwrap().model()
        }
        None => Model::read(BUILT_IN, INPUTS).unwrap(),
    };
    Bench::of(None, 64 << 10, None, model, Some(Box::leak(Box::new(slots))))
}

fn blank() -> Shared {
    Shared(Rc::new(RefCell::new(vec![0xff; 6 * PAGE as usize])))
}

fn run(bench: &mut Bench, agent: &mut Agent, ticks: u32) {
    for _ in 0..ticks {
        bench.tick();
        agent.turn(bench);
    }
}

/// Offers a blob and sends what the node asks for; its last word.
fn send(bench: &mut Bench, agent: &mut Agent, blob: &[u8]) -> BlobStep {
    let (kind, length, checksum) = (BlobKind::Model, blob.len() as u32, blob_checksum(blob));
    bench.hear(Down::V1(DownV1::Offer { blob: 1, kind, length, checksum }));
    loop {
        agent.turn(bench);
        match agent.steps.pop().unwrap() {
            BlobStep::Next(from) => {
                let bytes = blob[from as usize..].chunks(BLOB_PART).next().unwrap();
                bench.hear(Down::V1(DownV1::Part { blob: 1, offset: from, bytes }));
            }
            last => return last,
        }
    }
}

fn last_holds(agent: &Agent) -> Holds {
    *agent.holds.iter().rev().find(|holds| holds.kind == BlobKind::Model).unwrap()
}

fn model(version: u32, rollback: u32, state: Held) -> Holds {
    Holds { kind: BlobKind::Model, version, rollback, state }
}

#[test]
fn a_model_is_taken_tried_and_confirmed_once_it_works_and_an_agent_hears_it() {
    let flash = blank();
    let (mut bench, mut agent) = (start(&flash), Agent::default());
    run(&mut bench, &mut agent, 10);
    assert_eq!(last_holds(&agent), model(0, 0, Held::Confirmed));
    assert_eq!(send(&mut bench, &mut agent, &blob(7, false)), BlobStep::Complete);
    assert_eq!(bench.node.action(bench.now), None, "its answer leaves first");
    run(&mut bench, &mut agent, 501);
    assert_eq!(bench.node.action(bench.now), Some(Action::Restart));

    let (mut bench, mut agent) = (start(&flash), Agent::default());
    run(&mut bench, &mut agent, 10);
    assert_eq!(last_holds(&agent), model(7, 0, Held::Trial));
    assert!(agent.heard("threshold: Some(7)") > 0, "the new model's threshold");
    assert_eq!(send(&mut bench, &mut agent, &blob(8, false)), BlobStep::Refused(BlobProblem::Busy));
    for _ in 0..1400 {
        run(&mut bench, &mut agent, 1);
        assert_eq!(bench.node.action(bench.now), None);
    }
    assert_eq!(last_holds(&agent), model(7, 1, Held::Confirmed));
    assert_eq!(last_holds(&Agent::default_after(&mut start(&flash))), model(7, 1, Held::Confirmed));
}

#[test]
fn a_trial_without_an_agent_or_without_a_sensor_ends_in_a_restart_and_the_old_one() {
    for sensor in [true, false] {
        let flash = blank();
        let (mut bench, mut agent) = (start(&flash), Agent::default());
        run(&mut bench, &mut agent, 10);
        assert_eq!(send(&mut bench, &mut agent, &blob(7, false)), BlobStep::Complete);
        let (mut bench, mut agent) = (start(&flash), Agent::default());
        bench.set_fault((!sensor).then_some(tributary_node_simulation::Fault::Missing));
        let mut restarted = 0;
        while restarted == 0 {
            bench.tick();
            assert!(bench.now < 130_000_000, "the trial never ends");
            if !sensor {
                agent.turn(&mut bench);
            } else {
                bench.say();
            }
            if bench.node.action(bench.now) == Some(Action::Restart) {
                restarted = bench.now;
            }
        }
        assert_eq!(restarted, 120_000_000);
        let agent = Agent::default_after(&mut start(&flash));
        assert_eq!(last_holds(&agent), model(0, 0, Held::Reverted { version: 7 }));
    }
}

#[test]
fn an_update_after_an_absence_waits_until_the_agent_has_all_records() {
    let flash = blank();
    let (mut bench, mut agent) = (start(&flash), Agent::default());
    run(&mut bench, &mut agent, 10);
    for _ in 0..45_000 {
        bench.tick();
        bench.say();
    }
    let waiting = bench.node.dropped();
    assert!(waiting > 500 && bench.node.health().overwritten == 0, "{waiting} records wait");
    for _ in 0..1100 {
        if bench.node.is_open() {
            break;
        }
        run(&mut bench, &mut agent, 1);
    }
    assert_eq!(send(&mut bench, &mut agent, &blob(7, false)), BlobStep::Complete);
    // The agent now answers ten times a second: the store is empty after some seconds.
    let begun = bench.now;
    while bench.node.action(bench.now).is_none() {
        bench.tick();
        assert!(bench.now < begun + 60_000_000, "the update is held up");
        if bench.now.is_multiple_of(100_000) {
            agent.turn(&mut bench);
        }
    }
    assert!(bench.now > begun + 1_000_000, "{} µs", bench.now - begun);
    assert_eq!((bench.node.dropped(), agent.receiver.lost()), (0, 0));
    assert!(agent.stored.len() as u32 > waiting);
}

#[test]
fn an_update_waits_for_an_absent_agent_and_not_for_ever_for_a_slow_one() {
    // Some windows wait on the line, or more than it carries.
    for (ticks, most) in [(300_u32, 10_000_000), (6000, 3_600_000_000)] {
        let flash = blank();
        let (mut bench, mut agent) = (start(&flash), Agent::default());
        run(&mut bench, &mut agent, 300);
        assert_eq!(send(&mut bench, &mut agent, &blob(7, false)), BlobStep::Complete);
        for _ in 0..ticks {
            bench.tick();
            assert_eq!(bench.node.action(bench.now), None);
        }
        // Nobody is there for two hours: a restart would lose what waits, and no trial could pass.
        for _ in 0..2 {
            bench.now += 3_600_000_000;
            bench.say();
            assert_eq!(bench.node.action(bench.now), None);
        }
        assert!(!bench.node.is_open());
        // It is back, and acknowledges nothing.
        bench.hear(Down::Welcome { version: 1, session: agent.session });
        let begun = bench.now;
        while bench.node.action(bench.now).is_none() {
            bench.now += 500_000;
            bench.hear(Down::V1(DownV1::Time { asked: 1 }));
            bench.say();
            assert!(bench.now <= begun + most, "the update is held up");
        }
        let waited = bench.now - begun + u64::from(ticks) * 1000;
        assert!((most..=most + 500_000).contains(&waited), "{waited} µs");
        assert!(bench.node.dropped() > 0, "what it loses is counted");
    }
}

#[test]
fn a_model_that_computes_something_else_here_is_refused_and_stray_parts_are_counted() {
    let flash = blank();
    let (mut bench, mut agent) = (start(&flash), Agent::default());
    run(&mut bench, &mut agent, 10);
    bench.hear(Down::V1(DownV1::Part { blob: 9, offset: 0, bytes: &[1] }));
    assert_eq!(bench.node.health().refused, 1);
    assert_eq!(send(&mut bench, &mut agent, &blob(7, true)), BlobStep::Refused(BlobProblem::Cases));
    run(&mut bench, &mut agent, 1000);
    assert_eq!((bench.node.action(bench.now), last_holds(&agent).version), (None, 0));
}
