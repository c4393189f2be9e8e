//! Blobs that are not what they should be, trials that fail, flash that forgets.

use ed25519_dalek::SigningKey;
use tributary_wire::link::{BLOB_PART, BlobKind, BlobProblem, BlobStep, Held, Holds, IMAGE_HEAD, blob_checksum};

use crate::flash::{Flash, PAGE};
use crate::node::{LAYOUT, blob, blob_of, factory, live_on, open, send, signer};

use BlobKind::{Firmware, Model};

fn started(flash: &Flash) -> u32 {
    open(flash).unwrap().boot(Firmware).unwrap().unwrap().version
}

#[test]
fn a_blob_with_any_bit_flipped_is_refused_and_the_old_one_runs() {
    let flash = factory();
    let mut slots = open(&flash).unwrap();
    let good = blob(Model, 3);
    let untouched = flash.bytes();
    for bit in 0..8 * good.len() {
        // A flip in the payload's middle says no more than one at its ends.
        if bit > 8 * (IMAGE_HEAD + 4) && bit < 8 * (good.len() - 2) && !bit.is_multiple_of(53) {
            continue;
        }
        let mut changed = good.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        // The offer's checksum is of what comes: whoever changes one changes the other.
        let step = send(&mut slots, bit as u32, Model, &changed);
        assert!(matches!(step, BlobStep::Refused(_)), "bit {bit}: {step:?}");
        if bit < 8 * IMAGE_HEAD {
            assert_eq!(flash.bytes(), untouched, "bit {bit}: something was written for an unsigned head");
        }
    }
    assert_eq!(started(&flash), 1);
    assert_eq!(send(&mut slots, 1, Model, &good), BlobStep::Complete);
}

#[test]
fn what_is_not_for_this_node_is_refused_before_anything_is_written() {
    let flash = factory();
    let mut slots = open(&flash).unwrap();
    let untouched = flash.bytes();
    let stranger = SigningKey::from_bytes(&[6; 32]);
    let mut longer = blob(Model, 3);
    longer.push(0);
    let mut short = blob(Model, 3);
    short.truncate(300);
    for (kind, blob, problem) in [
        (Model, blob_of(&signer(), "fan", Model, 3, 3, 300), BlobProblem::Node),
        (Model, blob_of(&signer(), "pump", Firmware, 3, 3, 300), BlobProblem::Kind),
        (Firmware, blob_of(&signer(), "pump", Firmware, 3, 3, 1837), BlobProblem::Room { room: 2048 }),
        (Model, blob_of(&stranger, "pump", Model, 3, 3, 300), BlobProblem::Signature),
        (Model, longer, BlobProblem::Malformed),
        (Model, short, BlobProblem::Malformed),
        (Model, vec![0; 900], BlobProblem::Malformed),
        (Model, vec![], BlobProblem::Malformed),
        (Model, blob(Model, 3)[..IMAGE_HEAD].to_vec(), BlobProblem::Malformed),
    ] {
        assert_eq!(send(&mut slots, 1, kind, &blob), BlobStep::Refused(problem));
        assert_eq!(flash.bytes(), untouched, "{problem:?}");
    }
}

#[test]
fn an_older_rollback_index_is_refused_once_a_newer_one_is_confirmed() {
    let flash = factory();
    live_on(&flash, &[(Firmware, 1), (Model, 5)], &[(Model, 5)]);
    let mut slots = open(&flash).unwrap();
    assert_eq!(slots.holds(Model), Holds { kind: Model, version: 5, rollback: 5, state: Held::Confirmed });
    let older = blob_of(&signer(), "pump", Model, 9, 4, 300);
    assert_eq!(send(&mut slots, 1, Model, &older), BlobStep::Refused(BlobProblem::Older));
    // An older version with an index that holds is somebody's decision to go back.
    let back = blob_of(&signer(), "pump", Model, 2, 5, 300);
    assert_eq!(send(&mut slots, 2, Model, &back), BlobStep::Complete);
}

#[test]
fn a_trial_that_nobody_confirms_goes_back_and_says_so() {
    let flash = factory();
    let mut slots = open(&flash).unwrap();
    assert_eq!(send(&mut slots, 1, Firmware, &blob(Firmware, 2)), BlobStep::Complete);
    assert_eq!(slots.offer(1, Firmware, 1112, blob_checksum(&blob(Firmware, 2))), BlobStep::Complete, "told again");
    assert!(slots.is_staged() && !slots.is_on_trial());
    assert_eq!(send(&mut slots, 2, Model, &blob(Model, 3)), BlobStep::Refused(BlobProblem::Busy));
    let boot = open(&flash).unwrap().boot(Firmware).unwrap().unwrap();
    assert_eq!((boot.version, boot.trial), (2, true));
    assert_eq!(open(&flash).unwrap().holds(Firmware).state, Held::Trial);
    // It hangs; the watchdog starts the loader again.
    assert_eq!(started(&flash), 1);
    let mut slots = open(&flash).unwrap();
    assert_eq!(
        slots.holds(Firmware),
        Holds { kind: Firmware, version: 1, rollback: 0, state: Held::Reverted { version: 2 } }
    );
    assert_eq!(started(&flash), 1, "and it stays");
    // It may be tried again.
    assert_eq!(send(&mut slots, 2, Firmware, &blob(Firmware, 2)), BlobStep::Complete);
    assert_eq!(started(&flash), 2);
    let mut slots = open(&flash).unwrap();
    slots.confirm().unwrap();
    assert_eq!(started(&flash), 2);
}

#[test]
fn a_model_that_fails_its_own_cases_is_refused() {
    let flash = factory();
    let mut slots = open(&flash).unwrap();
    let keys = [signer().verifying_key().to_bytes()];
    let trusted = tributary_slots::Trusted { keys: &keys, node: crate::node::name("pump") };
    let mut other = tributary_slots::Slots::open(flash.clone(), LAYOUT, trusted, |_| false).unwrap();
    assert_eq!(send(&mut other, 1, Model, &blob(Model, 3)), BlobStep::Refused(BlobProblem::Cases));
    assert_eq!(slots.boot(Model), Ok(None));
}

#[test]
fn parts_that_repeat_come_early_or_are_cut_change_nothing() {
    let flash = factory();
    let mut slots = open(&flash).unwrap();
    let good = blob(Firmware, 2);
    assert_eq!(slots.part(4, 0, &good[..BLOB_PART]), None, "nothing was offered");
    let offer = |slots: &mut tributary_slots::Slots<'_, Flash>| {
        slots.offer(4, Firmware, good.len() as u32, blob_checksum(&good))
    };
    assert_eq!(offer(&mut slots), BlobStep::Next(0));
    let mut from = 0;
    while from < good.len() {
        let part = &good[from..(from + BLOB_PART).min(good.len())];
        let next = BlobStep::Next(from as u32);
        let here = Some(next);
        assert_eq!(slots.part(4, from as u32 + 128, part), here);
        assert_eq!(slots.part(4, from as u32, &part[1..]), here);
        assert_eq!(slots.part(5, from as u32, part), here);
        assert_eq!(slots.part(4, u32::MAX, part), here);
        if from > 0 {
            assert_eq!(slots.part(4, from as u32 - 128, &good[from - 128..from]), here, "a repeated part");
        }
        assert_eq!(offer(&mut slots), next, "an offer asks how far it is");
        let step = slots.part(4, from as u32, part).unwrap();
        from += part.len();
        let expected = if from == good.len() { BlobStep::Complete } else { BlobStep::Next(from as u32) };
        assert_eq!(step, expected);
    }
}

#[test]
fn a_restart_goes_on_at_the_page_it_was_in() {
    let flash = factory();
    let good = blob(Firmware, 2);
    let checksum = blob_checksum(&good);
    let mut slots = open(&flash).unwrap();
    slots.offer(1, Firmware, good.len() as u32, checksum);
    for from in (0..7 * BLOB_PART).step_by(BLOB_PART) {
        slots.part(1, from as u32, &good[from..from + BLOB_PART]).unwrap();
    }
    let mut slots = open(&flash).unwrap();
    assert_eq!(slots.offer(2, Firmware, good.len() as u32, checksum), BlobStep::Next(PAGE as u32));
    // Another blob takes its place.
    let mut slots = open(&flash).unwrap();
    let other = blob(Firmware, 3);
    assert_eq!(slots.offer(2, Firmware, other.len() as u32, blob_checksum(&other)), BlobStep::Next(0));
    assert_eq!(slots.offer(3, Firmware, good.len() as u32, checksum), BlobStep::Next(PAGE as u32));
    // What is in flash was changed meanwhile: the hash finds it at the end.
    flash.damage(LAYOUT.firmware[1] as usize + 300);
    let mut slots = open(&flash).unwrap();
    assert!(matches!(send(&mut slots, 4, Firmware, &good), BlobStep::Refused(BlobProblem::Checksum { .. })));
    assert_eq!(send(&mut slots, 5, Firmware, &good), BlobStep::Complete);
}

#[test]
fn flash_that_forgets_is_found_at_the_start() {
    let flash = factory();
    live_on(&flash, &[(Firmware, 1), (Firmware, 2), (Model, 3)], &[(Model, 3), (Firmware, 2)]);
    flash.damage(LAYOUT.firmware[1] as usize + 700);
    assert_eq!(started(&flash), 1, "older than what was confirmed, but it runs");
    flash.damage(LAYOUT.model[0] as usize + 300);
    assert_eq!(open(&flash).unwrap().boot(Model), Ok(None), "the program has its own");
    flash.damage(LAYOUT.firmware[0] as usize + 700);
    assert_eq!(open(&flash).unwrap().boot(Firmware), Ok(None));
}

#[test]
fn no_messages_in_any_order_make_it_panic() {
    let flash = factory();
    let mut slots = open(&flash).unwrap();
    let blobs = [blob(Model, 3), blob(Firmware, 2), blob_of(&signer(), "fan", Model, 3, 3, 300)];
    let mut chance = 3_u32;
    let mut random = |below: u32| {
        chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (chance >> 8) % below
    };
    for _ in 0..4000 {
        let blob = &blobs[random(3) as usize];
        let kind = if random(2) == 0 { Model } else { Firmware };
        if random(6) == 0 {
            let length = if random(4) == 0 { random(4000) } else { blob.len() as u32 };
            slots.offer(random(3), kind, length, blob_checksum(blob));
        } else {
            let from = random(blob.len() as u32 + 9).next_multiple_of(128).min(blob.len() as u32);
            let length = random(129).min(blob.len() as u32 - from);
            slots.part(random(3), from, &blob[from as usize..(from + length) as usize]);
        }
        if random(300) == 0 {
            slots = open(&flash).unwrap();
            slots.boot(Firmware).unwrap().unwrap();
            slots.boot(Model).unwrap();
        }
    }
}
