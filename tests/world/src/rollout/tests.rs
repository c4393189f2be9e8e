use super::*;
use crate::replay;
use crate::seeds::{number, on_all_cores};

/// Worlds of one run of the tests; `WORLD_ROLLOUTS` asks for more.
fn seeds() -> u64 {
    number("WORLD_ROLLOUTS", 300)
}

/// What is run most: cheap, and with all that a larger world has.
fn small() -> Settings {
    Settings { devices: Some(3), minutes: Some(20), ..Settings::default() }
}

fn passes(seed: u64, settings: &Settings) -> Figures {
    replay::rollouts(seed, settings).unwrap_or_else(|failed| panic!("{failed}"))
}

#[test]
fn whatever_breaks_the_promises_hold_and_afterwards_everybody_gets_the_last_release() {
    on_all_cores(0..seeds(), |seed| drop(passes(seed, &small())));
}

/// Worlds with as many devices as the seed says, and an hour of faults.
#[test]
fn larger_worlds_hold_their_promises_too() {
    on_all_cores(0..seeds() / 20, |seed| drop(passes(seed, &Settings::default())));
}

#[test]
fn the_same_seed_is_the_same_world() {
    let trace = |seed| passes(seed, &small()).trace;
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}

/// What is broken on purpose is found, by a seed at which nothing is found when nothing is broken.
#[test]
fn every_breakage_is_found() {
    on_all_cores(0..BREAKAGES.len() as u64, |which| {
        let breakage = BREAKAGES[which as usize];
        let broken = Settings { breakage: Some(breakage), ..small() };
        let found = (0..100).find_map(|seed| Some((seed, replay::rollouts(seed, &broken).err()?)));
        let (seed, found) = found.unwrap_or_else(|| panic!("100 seeds do not find {breakage:?}"));
        passes(seed, &small());
        let first = found.why.lines().next().unwrap_or_default().chars().take(160).collect::<String>();
        println!("{breakage:?} is found by seed {seed}: {first}");
    });
}
