//! Golden cases and the choice among engines.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tributary_inference::{Engine, GoldenMismatch, InferenceError, check_golden, load_served, pick_fastest};
use tributary_release::Package;

use crate::fixture::{WIDTH, network, package, random, values};

fn fixture() -> Package {
    let rows = values(&mut random(5), 20 * WIDTH, 3.0);
    package(&network(4, WIDTH, 8), &rows)
}

/// Gives what the package promises, with something added, and takes its time.
struct Scripted<'a> {
    name: &'static str,
    package: Package,
    add: f32,
    takes: u64,
    clock: &'a AtomicU64,
}

impl Engine for Scripted<'_> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn features(&self) -> usize {
        WIDTH
    }

    fn outputs(&self) -> usize {
        1
    }

    fn predict(&self, rows: &[f32], _: usize, out: &mut Vec<f32>) -> Result<(), InferenceError> {
        self.clock.fetch_add(self.takes, Ordering::Relaxed);
        out.clear();
        for row in rows.chunks(WIDTH) {
            let case = self.package.golden.iter().find(|case| case.features == row).unwrap();
            out.push(case.output + self.add);
        }
        Ok(())
    }
}

static CLOCK: AtomicU64 = AtomicU64::new(0);

fn scripted(name: &'static str, package: &Package, add: f32, takes: u64) -> Box<dyn Engine> {
    Box::new(Scripted { name, package: package.clone(), add, takes, clock: &CLOCK })
}

#[test]
fn the_engine_gives_what_the_package_promises() {
    let package = Package::read(&fixture().write().unwrap()).unwrap();
    let engine = load_served(&package).unwrap();
    let report = check_golden(&*engine, &package).unwrap();
    assert_eq!(report.cases, 20);
    assert!(report.largest_difference <= 1e-5, "{report:?}");
}

#[test]
fn an_output_too_far_away_or_not_a_number_is_named() {
    let package = fixture();
    for add in [0.001, -0.001, f32::NAN, f32::INFINITY] {
        let error = check_golden(&*scripted("off", &package, add, 1), &package).unwrap_err();
        assert!(matches!(error, GoldenMismatch::Output { case: 0, .. }), "{error}");
    }
}

#[test]
fn decisions_must_agree_outside_the_margin_and_may_differ_inside() {
    let mut package = fixture();
    package.manifest.tolerance = 0.1;
    package.golden.truncate(1);
    package.golden[0].output = 0.48;
    package.golden[0].decision = false;
    let engine = scripted("over", &package, 0.04, 1);
    let error = check_golden(&*engine, &package).unwrap_err();
    assert!(matches!(error, GoldenMismatch::Decision { case: 0, decision: false, .. }), "{error}");
    assert_eq!(error.to_string(), "golden case 0 gives 0.52 and decides true, expected 0.48 and false");
    package.manifest.decision.margin = 0.03;
    assert!(check_golden(&*engine, &package).is_ok());
}

#[test]
fn the_fastest_engine_that_agrees_is_kept() {
    let package = fixture();
    let engines = vec![
        scripted("slow", &package, 0.0, 9),
        scripted("wrong", &package, 0.3, 1),
        scripted("fast", &package, 0.0, 4),
        scripted("as fast", &package, 0.0, 4),
    ];
    let clock = || Duration::from_micros(CLOCK.load(Ordering::Relaxed));
    let choice = pick_fastest(engines, &package, &clock).unwrap();
    assert_eq!(choice.engine.name(), "fast");
    assert_eq!(choice.candidates[0].outcome, Ok(Duration::from_micros(9)));
    assert!(matches!(choice.candidates[1].outcome, Err(GoldenMismatch::Output { .. })));
}

#[test]
fn without_an_engine_that_agrees_each_refusal_is_told() {
    let package = fixture();
    let engines = vec![scripted("wrong", &package, 0.3, 1), scripted("broken", &package, f32::NAN, 1)];
    let error = pick_fastest(engines, &package, &|| Duration::ZERO).err().unwrap();
    let text = error.to_string();
    assert!(text.contains("; wrong: golden case 0") && text.contains("; broken: golden case 0"), "{text}");
}
