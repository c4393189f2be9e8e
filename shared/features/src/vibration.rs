//! Windows of vibration as values of events.
//!
//! A sensor node computes its features with `tributary-signal`; whoever has the raw samples (training, a check of a
//! node) calls [`of_samples`], the same code, and gets the same bits. [`values`] says what they mean: amplitudes in
//! m/s², ratios as they are. Its arithmetic is a division by a power of two and one multiplication, so it too gives the
//! same bits everywhere.

use tributary_signal::{AMPLITUDE_BITS, Analysis, Features, RATIO_BITS, WrongAnalysis};
use tributary_wire::link::Features as Told;

use crate::event::Value;

/// The features of a window of raw samples, with `B` bands of the same width.
pub fn of_samples<const B: usize>(samples: &[i16]) -> Result<Features<B>, WrongAnalysis> {
    let analysis = Analysis::even(samples.len())?;
    let mut counts: Vec<i32> = samples.iter().map(|sample| i32::from(*sample)).collect();
    Ok(analysis.features(&mut counts))
}

/// The values of an event that a window is, by name: `axis`, `window`; `mean`, `rms`, `peak`, `band_1` … in m/s²;
/// `crest`, `kurtosis` as ratios; `crossings`; `score`, `temperature` in °C where there are any. `count` is one count
/// of the converter in nm/s².
pub fn values(told: &Told, count: u32) -> Vec<(String, Value)> {
    let unit = f64::from(count) * 1e-9 / f64::from(1_u32 << AMPLITUDE_BITS);
    let amplitude = |fixed: u32| Value::Double(f64::from(fixed) * unit);
    let ratio = |fixed: u32| Value::Double(f64::from(fixed) / f64::from(1_u32 << RATIO_BITS));
    let mut values = vec![
        ("axis".to_owned(), Value::Int(told.axis.into())),
        ("window".to_owned(), Value::Int(told.window.into())),
        ("mean".to_owned(), Value::Double(f64::from(told.mean) * unit)),
        ("rms".to_owned(), amplitude(told.rms)),
        ("peak".to_owned(), amplitude(told.peak)),
        ("crest".to_owned(), ratio(told.crest)),
        ("kurtosis".to_owned(), ratio(told.kurtosis)),
        ("crossings".to_owned(), Value::Int(told.crossings.into())),
    ];
    values.extend(told.bands.iter().enumerate().map(|(band, rms)| (format!("band_{}", band + 1), amplitude(*rms))));
    values.extend(told.score.map(|score| ("score".to_owned(), Value::Int(score.into()))));
    let celsius = |hundredths: i16| ("temperature".to_owned(), Value::Double(f64::from(hundredths) / 100.0));
    values.extend(told.temperature.map(celsius));
    values
}

#[cfg(test)]
mod tests {
    use tributary_wire::link::Numbers;

    use super::*;

    #[test]
    fn amplitudes_are_in_metres_per_second_squared() {
        let samples: Vec<i16> = (0..64).map(|n| if n % 2 == 0 { 300 } else { 100 }).collect();
        let features = of_samples::<2>(&samples).unwrap();
        let moments = features.moments;
        let told = Told {
            window: 3,
            axis: 1,
            mean: moments.mean,
            rms: moments.rms,
            peak: moments.peak,
            crest: moments.crest,
            kurtosis: moments.kurtosis,
            crossings: moments.crossings,
            bands: Numbers::new(features.bands),
            score: None,
            temperature: Some(2150),
        };
        // One count is 1 mm/s².
        let values = values(&told, 1_000_000);
        let value =
            |name: &str| values.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).unwrap();
        let double = |name: &str| match value(name) {
            Value::Double(value) => value,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(
            (value("axis"), value("window"), value("crossings")),
            (Value::Int(1), Value::Int(3), Value::Int(63))
        );
        for (name, expected) in [("mean", 0.2), ("rms", 0.1), ("peak", 0.1), ("crest", 1.0), ("temperature", 21.5)] {
            assert!((double(name) - expected).abs() < 1e-9, "{name}: {}", double(name));
        }
        assert!(values.iter().any(|(name, _)| name == "band_2") && !values.iter().any(|(name, _)| name == "score"));
    }
}
