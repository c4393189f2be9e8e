use super::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tributary_stats::WindowKey;

const FEATURES: usize = 15;

/// A fleet whose days differ more than chance: every day has its own small offset, as weather or pay days would.
fn day(rng: &mut SmallRng, rows: usize, shift: f32) -> Vec<Vec<f32>> {
    (0..FEATURES)
        .map(|_| {
            let wobble = rng.random_range(-0.1..0.1f32);
            (0..rows).map(|_| normal(rng) + wobble + shift).collect()
        })
        .collect()
}

fn normal(rng: &mut SmallRng) -> f32 {
    (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0
}

fn references(rng: &mut SmallRng, days: i64, rows: usize) -> (Vec<Reference>, Reference) {
    let mut columns = vec![Vec::new(); FEATURES];
    let mut when = Vec::new();
    for number in 0..days {
        for (column, values) in columns.iter_mut().zip(day(rng, rows, 0.0)) {
            column.extend(values);
        }
        when.extend(std::iter::repeat_n(number, rows));
    }
    let build = |(i, values): (usize, &Vec<f32>)| Reference::build(&format!("f{i}"), values, &when, 20);
    let inputs: Vec<Reference> = columns.iter().enumerate().map(build).collect();
    let output = Reference::build("output", &columns[0], &when, 20);
    (inputs, output)
}

fn window(rng: &mut SmallRng, inputs: &[Reference], output: &Reference, days: usize, shift: f32) -> Sketch {
    let key = WindowKey { line: "l".into(), version: 1, role: "primary".into(), start: 0, end: 1 };
    let mut sketch = Sketch::new(key, inputs, output);
    for _ in 0..days {
        let columns = day(rng, 400, shift);
        for (i, values) in columns.iter().enumerate() {
            values.iter().for_each(|value| sketch.inputs[i].record(&inputs[i].bins, Some(*value)));
        }
        columns[0].iter().for_each(|value| sketch.output.record(&output.bins, Some(*value)));
        sketch.predictions += 400;
    }
    sketch
}

#[test]
fn without_change_no_window_of_many_alarms() {
    let mut alarms = 0;
    for seed in 0..20 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (inputs, output) = references(&mut rng, 14, 400);
        for window_days in [1, 7] {
            let settings = Settings { window_days, min_predictions: 100, ..Settings::default() };
            let windows: Vec<Findings> = (0..8)
                .map(|_| {
                    judge(&settings, &inputs, &output, &window(&mut rng, &inputs, &output, window_days as usize, 0.0))
                })
                .collect();
            alarms += windows.iter().flat_map(|w| &w.signals).filter(|signal| signal.drifted).count();
            assert!(windows.iter().all(|w| w.signals.len() == 2 * FEATURES + 1));
        }
    }
    assert_eq!(alarms, 0, "single windows already stay quiet; two in a row are asked for");
}

#[test]
fn a_real_shift_is_found_after_the_stated_number_of_windows_and_not_before() {
    let mut rng = SmallRng::seed_from_u64(1);
    let (inputs, output) = references(&mut rng, 14, 400);
    let settings = Settings::default();
    let mut windows: Vec<Findings> = Vec::new();
    for shift in [0.0, 0.0, 1.0] {
        windows.push(judge(&settings, &inputs, &output, &window(&mut rng, &inputs, &output, 7, shift)));
        assert_eq!(verdict(settings.consecutive, &windows), []);
    }
    windows.push(judge(&settings, &inputs, &output, &window(&mut rng, &inputs, &output, 7, 1.0)));
    let found = verdict(settings.consecutive, &windows);
    assert_eq!(found.len(), FEATURES + 1, "every input and the output shifted");
    windows.push(judge(&settings, &inputs, &output, &window(&mut rng, &inputs, &output, 7, 0.0)));
    assert_eq!(verdict(settings.consecutive, &windows), [], "a quiet window ends it");
}

#[test]
fn a_feature_that_goes_missing_is_a_signal_of_its_own() {
    let mut rng = SmallRng::seed_from_u64(2);
    let (inputs, output) = references(&mut rng, 14, 400);
    let mut broken = window(&mut rng, &inputs, &output, 7, 0.0);
    (0..800).for_each(|_| broken.inputs[3].record(&inputs[3].bins, None));
    let findings = judge(&Settings::default(), &inputs, &output, &broken);
    let drifted: Vec<_> = findings.signals.iter().filter(|s| s.drifted).map(|s| (s.kind, s.name.as_str())).collect();
    assert_eq!(drifted, [(SignalKind::Missing, "f3")]);
}

#[test]
fn small_windows_and_foreign_bins_are_skipped_with_the_reason_and_do_not_break_a_row() {
    let mut rng = SmallRng::seed_from_u64(3);
    let (inputs, output) = references(&mut rng, 14, 400);
    let settings = Settings::default();
    let loud = judge(&settings, &inputs, &output, &window(&mut rng, &inputs, &output, 7, 1.0));
    let thin = judge(&settings, &inputs, &output, &window(&mut rng, &inputs, &output, 1, 1.0));
    assert!(thin.skipped.as_deref().is_some_and(|reason| reason.contains("1000 are needed")));
    let (other, _) = references(&mut rng, 14, 400);
    let foreign = judge(&settings, &other, &output, &window(&mut rng, &inputs, &output, 7, 1.0));
    assert!(foreign.skipped.is_some());
    assert!(!verdict(2, &[loud.clone(), thin, foreign, loud]).is_empty());
    assert!(verdict(2, &[]).is_empty());
}

#[test]
fn senseless_settings_are_refused_by_name() {
    let wrong = Settings { false_discovery: 0.0, ..Settings::default() };
    assert_eq!(wrong.check().unwrap_err().setting, "drift.false_discovery");
    let mut wrong = Settings::default();
    wrong.quality.min_drop = 2.0;
    assert_eq!(wrong.check().unwrap_err().setting, "drift.quality.min_drop");
    assert_eq!(Settings::default().check(), Ok(()));
}
