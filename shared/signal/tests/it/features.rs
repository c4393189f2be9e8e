//! Fixed point against 64-bit floating point, by the formulas and a transform written out.

use proptest::prelude::*;
use tributary_signal::*;

use crate::signals::{noise, sine};

struct Reference {
    mean: f64,
    rms: f64,
    peak: f64,
    kurtosis: f64,
    crossings: u16,
    bands: Vec<f64>,
}

fn reference(samples: &[i32], ends: &[u16]) -> Reference {
    let length = samples.len() as f64;
    let mean = samples.iter().map(|&sample| f64::from(sample)).sum::<f64>() / length;
    let deviations: Vec<f64> = samples.iter().map(|&sample| f64::from(sample) - mean).collect();
    let moment = |power: i32| deviations.iter().map(|deviation| deviation.powi(power)).sum::<f64>() / length;
    // The fixed-point mean is rounded to 2⁻⁸; what is within that of the mean is on neither side for certain.
    let sides: Vec<bool> = deviations.iter().filter(|size| size.abs() > 1.0 / 256.0).map(|size| *size > 0.0).collect();
    let crossings = sides.windows(2).filter(|pair| pair[0] != pair[1]).count() as u16;
    let weighted: Vec<f64> = deviations
        .iter()
        .enumerate()
        .map(|(n, deviation)| deviation * 0.5 * (1.0 - (std::f64::consts::TAU * n as f64 / length).cos()))
        .collect();
    let power = |bin: u16| {
        let step = std::f64::consts::TAU * f64::from(bin) / length;
        let (re, im) = weighted.iter().enumerate().fold((0.0, 0.0), |(re, im), (n, value)| {
            let (sin, cos) = (step * n as f64).sin_cos();
            (re + value * cos, im - value * sin)
        });
        re * re + im * im
    };
    let mut from = 1;
    let bands = ends.iter().map(|&end| {
        let sum: f64 = (from..end).map(power).sum();
        from = end;
        (sum * 2.0 / (length * length) / 0.375).sqrt()
    });
    let bands = bands.collect();
    let (second, fourth) = (moment(2), moment(4));
    Reference {
        mean,
        rms: second.sqrt(),
        peak: deviations.iter().fold(0.0, |peak: f64, size| peak.max(size.abs())),
        kurtosis: if second == 0.0 { 0.0 } else { fourth / (second * second) },
        crossings,
        bands,
    }
}

fn amplitude(fixed: u32) -> f64 {
    f64::from(fixed) / f64::from(1 << AMPLITUDE_BITS)
}

fn ratio(fixed: u32) -> f64 {
    f64::from(fixed) / f64::from(1 << RATIO_BITS)
}

/// Whether two numbers agree within a step of the fixed form and a share of the larger.
#[track_caller]
fn close(what: &str, found: f64, expected: f64, step: f64, share: f64) {
    let tolerated = step + share * expected.abs().max(found.abs());
    assert!((found - expected).abs() <= tolerated, "{what}: {found}, expected {expected} ± {tolerated}");
}

#[track_caller]
fn check<const B: usize>(samples: &[i32]) {
    let analysis = Analysis::<B>::even(samples.len()).unwrap();
    let expected = reference(samples, analysis.ends());
    let Features { moments, bands } = analysis.features(&mut samples.to_vec());
    let step = 1.0 / 256.0;
    close("mean", f64::from(moments.mean) * step, expected.mean, step / 2.0 + 1e-9, 0.0);
    close("rms", amplitude(moments.rms), expected.rms, 1.1 * step, 1e-7);
    close("peak", amplitude(moments.peak), expected.peak, step, 1e-9);
    // Under half a count the rounding of the mean is no longer small beside the deviations.
    if expected.rms > 0.5 {
        close("kurtosis", ratio(moments.kurtosis), expected.kurtosis, 0.005, 3e-4);
        close("crest", ratio(moments.crest), expected.peak / expected.rms, 1e-3, 0.02 / expected.rms.max(1.0));
    }
    assert!(moments.crossings >= expected.crossings, "{} crossings of {}", moments.crossings, expected.crossings);
    for (band, (found, expected_band)) in bands.iter().zip(&expected.bands).enumerate() {
        // Rounding in the transform is noise about 2⁻²⁵ of the window's largest deviation.
        let noise = 2.0 * step + expected.peak * 2_f64.powi(-22);
        close(&format!("band {band}"), amplitude(*found), *expected_band, noise, 1e-5);
    }
}

#[test]
fn a_sine_has_the_features_of_a_sine() {
    let analysis = Analysis::<8>::even(512).unwrap();
    // 40 periods in 512 samples: bin 40 lies in band 1, bins 32 to 63.
    let Features { moments, bands } = analysis.features(&mut sine(512, 40.0, 10_000.0, 250.0));
    close("mean", f64::from(moments.mean) / 256.0, 250.0, 0.01, 0.0);
    close("rms", amplitude(moments.rms), 10_000.0 / 2_f64.sqrt(), 0.1, 0.0);
    close("crest", ratio(moments.crest), 2_f64.sqrt(), 1e-3, 0.0);
    close("kurtosis", ratio(moments.kurtosis), 1.5, 1e-3, 0.0);
    assert!((79..=80).contains(&moments.crossings), "{moments:?}");
    close("its band", amplitude(bands[1]), 10_000.0 / 2_f64.sqrt(), 1.0, 1e-4);
    assert!(bands.iter().enumerate().all(|(band, &rms)| band == 1 || amplitude(rms) < 1.0), "{bands:?}");
}

#[test]
fn bands_add_up_to_the_rms_and_noise_has_a_kurtosis_of_3() {
    let mut energy = 0.0;
    let mut kurtosis = 0.0;
    for seed in 0..20 {
        let features = Analysis::<4>::even(1024).unwrap().features(&mut noise(1024, 1000.0, seed));
        let bands: f64 = features.bands.iter().map(|&rms| amplitude(rms).powi(2)).sum();
        energy += bands / amplitude(features.moments.rms).powi(2) / 20.0;
        kurtosis += ratio(features.moments.kurtosis) / 20.0;
    }
    close("energy of all bands by that of the window", energy, 1.0, 0.03, 0.0);
    // Twelve uniform numbers have a kurtosis of 2.9.
    close("kurtosis", kurtosis, 2.9, 0.1, 0.0);
}

#[test]
fn where_nothing_moves_everything_but_the_mean_is_0() {
    for level in [0, 7, -MAX_SAMPLE, MAX_SAMPLE] {
        let Features { moments, bands } = Analysis::<8>::even(64).unwrap().features(&mut [level; 64]);
        assert_eq!(moments, Moments { mean: level << AMPLITUDE_BITS, ..Moments::default() });
        assert_eq!(bands, [0; 8]);
    }
}

#[test]
fn the_extremes_of_the_number_type_do_not_overflow() {
    for length in [MIN_WINDOW, MAX_WINDOW] {
        for period in [1, 2, 3, length / 2] {
            let square = |n: usize| if (n / period).is_multiple_of(2) { i32::MAX } else { i32::MIN };
            let samples: Vec<i32> = (0..length).map(square).collect();
            let limited: Vec<i32> = samples.iter().map(|sample| (*sample).clamp(-MAX_SAMPLE, MAX_SAMPLE)).collect();
            let analysis = Analysis::<4>::even(length).unwrap();
            assert_eq!(analysis.features(&mut samples.clone()), analysis.features(&mut limited.clone()));
            check::<4>(&limited);
        }
        let mut spike = vec![-MAX_SAMPLE; length];
        spike[5] = MAX_SAMPLE;
        check::<4>(&spike);
    }
}

#[test]
fn what_cannot_be_analysed_is_refused_with_the_reason() {
    assert_eq!(
        Analysis::<0>::new(100, []).unwrap_err().to_string(),
        "window of 100 samples; a power of two from 64 to 2048 is needed"
    );
    assert!(Analysis::<0>::new(4096, []).is_err());
    let wrong = Analysis::<2>::new(64, [8, 8]).unwrap_err();
    assert_eq!(wrong, WrongAnalysis::Band { band: 1, end: 8, after: 8, limit: 32 });
    assert!(Analysis::<1>::new(64, [1]).is_err() && Analysis::<1>::new(64, [33]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn features_are_those_of_floating_point(
        bits in 6_u32..=10, size in 1_u32..=23, offset in -1000_i32..1000, seed: u64, peaks in 0_usize..4,
    ) {
        let length = 1 << bits;
        let limit = (1 << size) - 1;
        let mut samples = noise(length, f64::from(limit) / 4.0, seed);
        for peak in 0..peaks {
            samples[(seed as usize).wrapping_mul(peak + 7) % length] = limit;
        }
        for sample in &mut samples {
            *sample = (*sample + offset).clamp(-MAX_SAMPLE, MAX_SAMPLE);
        }
        check::<8>(&samples);
    }

    #[test]
    fn any_samples_give_features_without_overflow(samples in proptest::collection::vec(any::<i32>(), 64)) {
        Analysis::<3>::new(64, [2, 3, 32]).unwrap().features(&mut samples.clone());
    }
}
