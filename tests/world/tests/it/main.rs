//! Seeds that CI runs, and checks of the checks. `WORLD_SEEDS` says how many, `WORLD_FROM` where they begin.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tributary_world::data::{Breakage, Options};
use tributary_world::figures::Figures;
use tributary_world::replay;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number: {text:?}")))
}

#[test]
fn nothing_is_lost_and_nothing_doubled_whatever_fails() {
    let from = number("WORLD_FROM", 0);
    let (next, until) = (AtomicU64::new(from), from + number("WORLD_SEEDS", 1000));
    let figures = Mutex::new(Figures::default());
    let work = || {
        while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < until) {
            match replay::data(seed, Options::default()) {
                Ok(run) => figures.lock().unwrap().add(&run),
                Err(failed) => {
                    next.store(until, Ordering::Relaxed);
                    panic!("{failed}");
                }
            }
        }
    };
    // One world is one thread; worlds know nothing of each other.
    std::thread::scope(|scope| {
        (0..std::thread::available_parallelism().map_or(1, |cores| cores.get())).for_each(|_| {
            scope.spawn(work);
        });
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
    for breakage in Breakage::ALL {
        let options = Options { breakage: Some(breakage), ..Options::default() };
        let found = (0..400).find_map(|seed| replay::data(seed, options).err());
        let found = found.unwrap_or_else(|| panic!("400 seeds do not find {breakage:?}"));
        println!("{breakage:?} is found by seed {}: {}", found.seed, found.why);
    }
}
