//! Seeds that CI runs, and checks of the checks. `WORLD_SEEDS` says how many, `WORLD_FROM` where they begin.

use std::sync::Mutex;

use tributary_world::data::{Breakage, Options};
use tributary_world::figures::Figures;
use tributary_world::replay;
use tributary_world::seeds::{number, on_all_cores};

#[test]
fn nothing_is_lost_and_nothing_doubled_whatever_fails() {
    let from = number("WORLD_FROM", 0);
    let until = from + number("WORLD_SEEDS", 3000);
    let figures = Mutex::new(Figures::default());
    on_all_cores(from..until, |seed| match replay::data(seed, Options::default()) {
        Ok(run) => figures.lock().unwrap().add(&run),
        Err(failed) => panic!("{failed}"),
    });
    let figures = figures.into_inner().unwrap();
    println!("{figures}");
    assert!(figures.sum.faults.total() > 0 && figures.sum.accepted > 0);
    // Some hubs are slow, and it is seen that they slow devices down; a few seeds may have none.
    assert!(figures.sum.held > 0 || figures.runs < 100, "no device was ever told to hold");
}

#[test]
fn the_same_seed_is_the_same_story() {
    for seed in 0..8 {
        let [one, other] =
            [(); 2].map(|()| replay::data(seed, Options::default()).unwrap_or_else(|failed| panic!("{failed}")));
        assert_eq!((one.trace, one.steps, one.faults), (other.trace, other.steps, other.faults), "seed {seed}");
    }
}

/// What is broken on purpose is found out, so what is broken by mistake is too.
#[test]
fn every_breakage_is_found_out() {
    on_all_cores(0..Breakage::ALL.len() as u64, |which| {
        let breakage = Breakage::ALL[which as usize];
        let options = Options { breakage: Some(breakage), ..Options::default() };
        let found = (0..400).find_map(|seed| replay::data(seed, options).err());
        let found = found.unwrap_or_else(|| panic!("400 seeds do not find {breakage:?}"));
        println!("{breakage:?} is found by seed {}: {}", found.seed, found.why);
    });
}
