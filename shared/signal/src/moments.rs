//! Features of the amplitude: mean, RMS, peak, crest factor, kurtosis, zero crossings.
//!
//! All but the mean are of the *alternating* part, that is of deviations from the mean: gravity and the offset of a
//! sensor are no vibration. Formulas as in ISO 20816-1 (RMS, peak) and in R. B. Randall, *Vibration-based Condition
//! Monitoring*, §3.1 and §5.2 (crest factor, kurtosis in Pearson's form: 3 for a normal distribution, 1.5 for a sine).

use crate::{AMPLITUDE_BITS, MAX_SAMPLE, MAX_WINDOW, MIN_WINDOW, RATIO_BITS};

/// What the amplitudes of one window say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moments {
    /// Arithmetic mean in 2⁻⁸ counts, rounded to nearest.
    pub mean: i32,
    /// Root of the mean square deviation in 2⁻⁸ counts, rounded down.
    pub rms: u32,
    /// Largest deviation to either side in 2⁻⁸ counts.
    pub peak: u32,
    /// Peak divided by RMS, in units of 2⁻¹⁶, rounded down; 0 where nothing moves.
    pub crest: u32,
    /// Fourth central moment divided by the squared second, in units of 2⁻¹⁶; 0 where nothing moves.
    pub kurtosis: u32,
    /// How often the signal passed its mean. A sample exactly at the mean passes nothing.
    pub crossings: u16,
}

/// The moments of a window whose length is a power of two from [`MIN_WINDOW`] to [`MAX_WINDOW`].
///
/// # Panics
/// With any other length.
pub fn moments(samples: &[i32]) -> Moments {
    let length = samples.len();
    assert!(length.is_power_of_two() && (MIN_WINDOW..=MAX_WINDOW).contains(&length), "a window of {length}");
    let bits = length.ilog2();
    let mean = mean(samples);
    // A deviation is below 2³² (24 bits, less another, 8 fraction bits), its square below 2⁶⁴, their sum below 2⁷⁵.
    let (mut sum, mut peak, mut crossings, mut side) = (0_u128, 0_u32, 0_u16, 0_i8);
    for &sample in samples {
        let deviation = deviation(sample, mean);
        let size = deviation.unsigned_abs() as u32;
        sum += u128::from(u64::from(size) * u64::from(size));
        peak = peak.max(size);
        let now = deviation.signum() as i8;
        if now != 0 {
            crossings += u16::from(side == -now);
            side = now;
        }
    }
    let rms = ((sum >> bits) as u64).isqrt() as u32;
    let crest = match rms {
        0 => 0,
        rms => ((u64::from(peak) << RATIO_BITS) / u64::from(rms)).min(u64::from(u32::MAX)) as u32,
    };
    Moments { mean, rms, peak, crest, kurtosis: kurtosis(samples, mean, peak), crossings }
}

/// In 2⁻⁸ counts, to nearest, halves upwards.
fn mean(samples: &[i32]) -> i32 {
    let sum: i64 = samples.iter().map(|&sample| i64::from(limited(sample))).sum();
    let bits = samples.len().ilog2();
    (((sum << AMPLITUDE_BITS) + (1 << (bits - 1))) >> bits) as i32
}

#[inline]
pub(crate) fn deviation(sample: i32, mean: i32) -> i64 {
    i64::from(limited(sample) << AMPLITUDE_BITS) - i64::from(mean)
}

#[inline]
fn limited(sample: i32) -> i32 {
    sample.clamp(-MAX_SAMPLE, MAX_SAMPLE)
}

/// The squares are shifted so that the largest just fits 32 bits: what is cut off is under 2⁻³⁰ of it.
fn kurtosis(samples: &[i32], mean: i32, peak: u32) -> u32 {
    let bits = samples.len().ilog2();
    let largest = u64::from(peak) * u64::from(peak);
    let shift = 32_u32.saturating_sub(largest.leading_zeros());
    let (mut squares, mut fourths) = (0_u64, 0_u128);
    for &sample in samples {
        let size = deviation(sample, mean).unsigned_abs();
        let square = (size * size) >> shift;
        squares += square;
        fourths += u128::from(square * square);
    }
    let (second, fourth) = (squares >> bits, (fourths >> bits) as u64);
    // second < 2³², so its square fits 64 bits. The quotient is at most the window's length.
    let square = second * second;
    let quotient = match fourth.leading_zeros() {
        _ if square == 0 => 0,
        room if room >= RATIO_BITS => (fourth << RATIO_BITS) / square,
        // A fourth moment of 48 bits or more belongs to a second moment of at least 18: enough for the shorter division.
        _ => fourth / (square >> RATIO_BITS).max(1),
    };
    quotient.min(u64::from(u32::MAX)) as u32
}
