//! A node as far as its slots go, and an agent that has something newer.

use ed25519_dalek::{Digest, Sha512, Signer, SigningKey};
use tributary_slots::{Layout, Slots, Trusted};
use tributary_wire::link::{
    BLOB_PART, BlobKind, BlobProblem, BlobStep, Held, IMAGE_HEAD, ImageHead, NodeName, blob_checksum,
};

use crate::flash::{Dead, Flash, PAGE};

const P: u32 = PAGE as u32;
pub const LAYOUT: Layout = Layout {
    journal: [0, P],
    model: [2 * P, 4 * P],
    model_size: 2 * P,
    firmware: [6 * P, 10 * P],
    firmware_size: 4 * P,
};
pub const SIZE: usize = 14 * PAGE;

pub fn signer() -> SigningKey {
    SigningKey::from_bytes(&[5; 32])
}

pub fn name(text: &str) -> NodeName<'_> {
    NodeName::new(text).unwrap()
}

/// A signed blob. A model's payload passes its cases when it begins with `good`.
pub fn blob_of(key: &SigningKey, node: &str, kind: BlobKind, version: u32, rollback: u32, length: usize) -> Vec<u8> {
    let mut payload = b"good".to_vec();
    payload.extend((4..length).map(|at| (at as u32 * version) as u8));
    let mut hash = [0; 64];
    hash.copy_from_slice(&Sha512::digest(&payload));
    let head = ImageHead { kind, node: name(node), version, rollback, length: length as u32, hash };
    let mut bytes = head.signed().to_vec();
    bytes.extend(key.sign(&bytes).to_bytes());
    bytes.extend(payload);
    bytes
}

pub fn blob(kind: BlobKind, version: u32) -> Vec<u8> {
    let length = if kind == BlobKind::Model { 331 } else { 900 };
    blob_of(&signer(), "pump", kind, version, version, length)
}

pub fn open(flash: &Flash) -> Result<Slots<'static, Flash>, Dead> {
    // Two keys, as while one is being replaced; ours is the second.
    let keys: &'static [[u8; 32]] =
        Box::leak(Box::new([SigningKey::from_bytes(&[9; 32]), signer()].map(|key| key.verifying_key().to_bytes())));
    Slots::open(flash.clone(), LAYOUT, Trusted { keys, node: name("pump") }, |model| model.starts_with(b"good"))
}

/// A node as it leaves the factory: firmware 1 in the first slot.
pub fn factory() -> Flash {
    use embedded_storage::nor_flash::NorFlash;
    let mut flash = Flash::new(SIZE);
    let mut bytes = blob(BlobKind::Firmware, 1);
    bytes.resize(bytes.len().next_multiple_of(8), 0xff);
    flash.write(LAYOUT.firmware[0], &bytes).unwrap();
    flash
}

/// Sends a blob from where the node has it; how that ended.
pub fn send(slots: &mut Slots<'_, Flash>, number: u32, kind: BlobKind, blob: &[u8]) -> BlobStep {
    let mut step = slots.offer(number, kind, blob.len() as u32, blob_checksum(blob));
    while let BlobStep::Next(from) = step {
        let part = blob[from as usize..].chunks(BLOB_PART).next().unwrap();
        step = slots.part(number, from, part).unwrap();
    }
    step
}

/// What a life of the node came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Life {
    /// It runs what it shall, confirmed.
    Done,
    /// It starts again.
    Restart,
}

fn note_floors(flash: &Flash, slots: &mut Slots<'_, Flash>) {
    for kind in [BlobKind::Firmware, BlobKind::Model] {
        flash.found_floor(kind, slots.holds(kind).rollback);
    }
}

/// One life of a node, from its loader on, with an agent that wants it to run these. Panics when what is started is not
/// wholly one of the versions that there are, or when a rollback index is lower than it was.
pub fn live(flash: &Flash, known: &[(BlobKind, u32)], wanted: &[(BlobKind, u32)]) -> Result<Life, Dead> {
    for kind in [BlobKind::Firmware, BlobKind::Model] {
        let mut slots = open(flash)?;
        let Some(boot) = slots.boot(kind)? else {
            assert_ne!(kind, BlobKind::Firmware, "no firmware can be started");
            continue;
        };
        assert!(known.contains(&(kind, boot.version)), "{boot:?} was never made");
        let mut payload = vec![0; boot.length as usize];
        slots.read(boot.at, &mut payload)?;
        assert_eq!(payload, blob(kind, boot.version)[IMAGE_HEAD..], "{boot:?} is damaged");
    }
    let mut slots = open(flash)?;
    note_floors(flash, &mut slots);
    // The self-test passes.
    if slots.is_on_trial() {
        slots.confirm()?;
        note_floors(flash, &mut slots);
    }
    for (number, (kind, version)) in wanted.iter().enumerate() {
        if slots.holds(*kind).version == *version {
            continue;
        }
        match send(&mut slots, number as u32, *kind, &blob(*kind, *version)) {
            // As after a cut: the next life tells.
            BlobStep::Complete | BlobStep::Refused(BlobProblem::Busy | BlobProblem::Store) => return Ok(Life::Restart),
            other => panic!("{kind:?} {version}: {other:?}"),
        }
    }
    assert!(wanted.iter().all(|(kind, _)| slots.holds(*kind).state == Held::Confirmed));
    Ok(Life::Done)
}

/// Lives until all is as wanted; how many lives that took.
pub fn live_on(flash: &Flash, known: &[(BlobKind, u32)], wanted: &[(BlobKind, u32)]) -> u32 {
    for lives in 1..20 {
        let lived = live(flash, known, wanted);
        let dead = flash.power();
        match lived {
            Ok(Life::Done) if !dead => return lives,
            Ok(_) => {}
            Err(Dead) => assert!(dead, "the flash failed with power"),
        }
    }
    panic!("it never came to run {wanted:?}");
}
