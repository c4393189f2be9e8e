//! The generator's physics, and what is learnt from it.

use tributary_features::{View, vibration};
use tributary_signal::{Model, ModelPayload};
use tributary_vibration::{
    Bearing, INPUTS, Input, LearnError, VIEW_TOML, Vibration, VibrationConfig, WINDOW, WindowOf, inputs_of, learn,
};
use tributary_wire::link::{Features as Told, Numbers};

const COUNT: u32 = 38_245_935;

fn windows(config: VibrationConfig, skip: usize, count: usize) -> Vec<Input> {
    let mut machine = Vibration::new(config);
    inputs_of(|| machine.counts(COUNT), skip, count)
}

fn healthy(seed: u64) -> Vec<Input> {
    windows(VibrationConfig { seed, ..VibrationConfig::default() }, 0, 24)
}

#[test]
fn the_view_is_one() {
    let view = View::from_toml(VIEW_TOML).unwrap();
    assert_eq!((view.name(), view.features().len()), ("vibration", 6));
}

#[test]
fn a_6205_is_passed_as_its_maker_says() {
    // Published multiples of the shaft's frequency: 3.585 for the outer race, 5.415 for the inner one.
    let bearing = Bearing::BALL_6205;
    assert!((bearing.outer_race() - 3.585).abs() < 0.001, "{}", bearing.outer_race());
    assert!((bearing.inner_race() - 5.415).abs() < 0.001, "{}", bearing.inner_race());
}

/// Power of the squared high-passed signal at a frequency: blows show in the envelope, not in the spectrum.
fn envelope_at(samples: &[f64], rate: f64, frequency: f64) -> f64 {
    let envelope: Vec<f64> = samples.windows(2).map(|pair| (pair[1] - pair[0]).powi(2)).collect();
    let mean = envelope.iter().sum::<f64>() / envelope.len() as f64;
    let (mut cosine, mut sine) = (0.0, 0.0);
    for (at, value) in envelope.iter().enumerate() {
        let angle = std::f64::consts::TAU * frequency * at as f64 / rate;
        cosine += (value - mean) * angle.cos();
        sine += (value - mean) * angle.sin();
    }
    (cosine * cosine + sine * sine).sqrt() / (envelope.len() as f64 * mean)
}

#[test]
fn a_worn_bearing_is_struck_at_the_frequency_of_its_outer_race_and_its_blows_grow() {
    let config = VibrationConfig { wears_after: Some(0.0), tenfold: 8.0, ..VibrationConfig::default() };
    let mut machine = Vibration::new(config);
    let mut blows = Vec::new();
    let samples: Vec<f64> = (0..16_000)
        .map(|at| {
            if at % 4000 == 0 {
                blows.push(machine.blow());
            }
            machine.sample()[0]
        })
        .collect();
    assert!(blows.windows(2).all(|pair| pair[1] > 3.0 * pair[0]) || blows[0] == 0.0, "{blows:?}");
    // Two seconds, so that the wandering speed does not blur the line.
    let late = &samples[12_000..14_000];
    let strongest = |from: f64, to: f64| {
        (0..60).map(|step| envelope_at(late, 1000.0, from + (to - from) * f64::from(step) / 60.0)).fold(0.0, f64::max)
    };
    let outer = config.shaft * config.bearing.outer_race();
    let (there, elsewhere) = (strongest(0.97 * outer, 1.01 * outer), strongest(1.2 * outer, 1.4 * outer));
    assert!(there > 3.0 * elsewhere, "{there} at the race, {elsewhere} beside it");
}

#[test]
fn a_model_learns_healthy_machines_and_finds_worn_ones() {
    let data: Vec<Input> = (0..20).flat_map(healthy).collect();
    let learnt = learn(&data).unwrap();
    let model = learnt.model().unwrap();
    let others: Vec<Input> = (100..140).flat_map(healthy).collect();
    let alarms = others.iter().filter(|input| model.score(*input) > model.threshold()).count();
    assert!(alarms * 100 < others.len(), "{alarms} false alarms of {}", others.len());
    let found = (0..20).filter(|seed| {
        let config =
            VibrationConfig { seed: 500 + seed, wears_after: Some(0.0), tenfold: 4.0, ..VibrationConfig::default() };
        windows(config, 24, 4).iter().any(|input| model.score(input) > model.threshold())
    });
    assert!(found.count() >= 19);
    let parity = learnt.parity(&others).unwrap();
    assert!(parity.mean < 3.0 && parity.agree.0 * 1000 >= parity.agree.1 * 995, "{parity:?}");
}

#[test]
fn what_goes_to_a_node_passes_its_cases_there_and_a_changed_weight_does_not() {
    let data: Vec<Input> = (0..6).flat_map(healthy).collect();
    let payload = learn(&data).unwrap().payload().unwrap();
    assert!(ModelPayload::read(&payload, INPUTS).unwrap().passes());
    let weights = payload.len() - 8 * (2 * INPUTS + 4) - 20;
    let mut changed = payload.clone();
    changed[weights] ^= 0x40;
    assert!(!ModelPayload::read(&changed, INPUTS).is_ok_and(|payload| payload.passes()));
    assert_eq!(learn(&data[..99]).unwrap_err(), LearnError::Few { found: 99 });
    assert_eq!(learn(&data).unwrap().payload().unwrap(), payload, "the same data, the same model");
}

#[test]
fn an_event_s_values_give_back_what_the_node_s_model_saw() {
    let mut machine = Vibration::new(VibrationConfig { wears_after: Some(0.2), tenfold: 0.2, ..Default::default() });
    for window in 0..40 {
        let samples: Vec<i16> = (0..WINDOW).map(|_| machine.counts(COUNT)[window % 3]).collect();
        let features = vibration::of_samples::<8>(&samples).unwrap();
        let (mut seen, mut at) = ([0; INPUTS], 0);
        features.inputs(|input| {
            seen[at] = input;
            at += 1;
        });
        let moments = features.moments;
        let told = Told {
            window: 1,
            axis: 0,
            mean: moments.mean,
            rms: moments.rms,
            peak: moments.peak,
            crest: moments.crest,
            kurtosis: moments.kurtosis,
            crossings: moments.crossings,
            bands: Numbers::new(features.bands),
            score: None,
            temperature: None,
        };
        let values = vibration::values(&told, COUNT);
        let double = |wanted: &str| match values.iter().find(|(name, _)| name == wanted).unwrap().1 {
            tributary_features::Value::Double(value) => value,
            ref other => panic!("{wanted}: {other:?}"),
        };
        let window = WindowOf {
            rms: double("rms"),
            crest: double("crest"),
            kurtosis: double("kurtosis"),
            crossings: moments.crossings.into(),
            bands: std::array::from_fn(|band| double(&format!("band_{}", band + 1))),
        };
        assert_eq!(window.input(COUNT), seen);
    }
}

#[test]
fn the_built_in_model_of_the_emulated_board_is_one_of_this_system() {
    let model = include_bytes!("../../../../../firmware/boards/mps2/model.bin");
    assert!(Model::read(model, INPUTS).is_ok());
}
