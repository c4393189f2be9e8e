//! The energy of a window's frequencies, by a fixed-point fast Fourier transform.
//!
//! A real window of N samples is read as N/2 complex ones, transformed in place by decimation in time (Cooley and Tukey
//! 1965), halving at every stage so that nothing can overflow, and taken apart again (W. Press et al., *Numerical
//! Recipes*, §12.3). With a Hann window: its mean square, 3/8, is divided out, so that the bands' energies add up to the
//! variance (Parseval; G. Heinzel et al., *Spectrum and spectral density estimation by the DFT*, 2002, §8).

use crate::moments::deviation;
use crate::sine::{SINE_BITS, sin_cos};

/// Bits of the scaled input without its sign. A complex number made of two such is under 2^29.5 long, and stays so;
/// the sum of two fits 31 bits.
const INPUT_BITS: i32 = 29;

/// Puts the weighted, scaled deviations where the samples were; returns the scale as a power of two.
pub(crate) fn prepare(samples: &mut [i32], mean: i32, peak: u32) -> i32 {
    let scale = INPUT_BITS - (32 - peak.leading_zeros() as i32);
    let length = samples.len();
    for (n, sample) in samples.iter_mut().enumerate() {
        let deviation = deviation(*sample, mean);
        let scaled = if scale >= 0 { deviation << scale } else { deviation >> -scale };
        // Hann in its periodic form, (1 - cos(2πn/N))/2; the second half mirrors the first.
        let (_, cos) = sin_cos(n.min(length - n), length);
        let weight = (i64::from(1 << SINE_BITS) - i64::from(cos)) >> 1;
        *sample = rounded(scaled * weight);
    }
    scale
}

/// Transforms N/2 complex numbers, real and imaginary parts in turn, and divides them by N/2.
pub(crate) fn transform(numbers: &mut [i32]) {
    let count = numbers.len() / 2;
    reorder(numbers, count);
    let mut half = 1;
    while half < count {
        for turn in 0..half {
            let (sin, cos) = sin_cos(turn, 2 * half);
            let (sin, cos) = (i64::from(sin), i64::from(cos));
            for low in (turn..count).step_by(2 * half) {
                let (a, b) = (2 * low, 2 * (low + half));
                let (re, im) = (i64::from(numbers[b]), i64::from(numbers[b + 1]));
                let (re, im) = (rounded(re * cos + im * sin), rounded(im * cos - re * sin));
                (numbers[a], numbers[b]) = (halved(numbers[a] + re), halved(numbers[a] - re));
                (numbers[a + 1], numbers[b + 1]) = (halved(numbers[a + 1] + im), halved(numbers[a + 1] - im));
            }
        }
        half *= 2;
    }
}

/// Each number goes to the place whose bits are its own in reverse.
fn reorder(numbers: &mut [i32], count: usize) {
    let unused = usize::BITS - count.ilog2();
    for at in 0..count {
        let to = at.reverse_bits() >> unused;
        if at < to {
            numbers.swap(2 * at, 2 * to);
            numbers.swap(2 * at + 1, 2 * to + 1);
        }
    }
}

/// |X|² of one bin of the real window, from 1 to N/2 - 1; X is divided by N/2.
pub(crate) fn power(numbers: &[i32], bin: usize) -> u64 {
    let mirror = numbers.len() - 2 * bin;
    let (z_re, z_im) = (numbers[2 * bin], numbers[2 * bin + 1]);
    let (y_re, y_im) = (numbers[mirror], numbers[mirror + 1]);
    // Twice the transforms of the even and of the odd samples.
    let (even_re, even_im) = (z_re + y_re, z_im - y_im);
    let (odd_re, odd_im) = (i64::from(z_im + y_im), i64::from(y_re - z_re));
    let (sin, cos) = sin_cos(bin, numbers.len());
    let (sin, cos) = (i64::from(sin), i64::from(cos));
    let re = i64::from(even_re) + i64::from(rounded(odd_re * cos + odd_im * sin));
    let im = i64::from(even_im) + i64::from(rounded(odd_im * cos - odd_re * sin));
    let (re, im) = ((re / 2).unsigned_abs(), (im / 2).unsigned_abs());
    re * re + im * im
}

/// The RMS in 2⁻⁸ counts of what has this summed power at this scale.
pub(crate) fn rms(power: u64, scale: i32) -> u32 {
    // Both halves of the spectrum, 2; over the window's mean square, 8/3; over the transform's division, 1/4.
    let root = (power + power / 3).isqrt();
    let rms = if scale >= 0 { root >> scale } else { root << -scale };
    rms.min(u64::from(u32::MAX)) as u32
}

/// A product with a factor of [`SINE_BITS`] fraction bits, to nearest.
#[inline]
fn rounded(product: i64) -> i32 {
    ((product + (1 << (SINE_BITS - 1))) >> SINE_BITS) as i32
}

#[inline]
fn halved(sum: i32) -> i32 {
    (sum + 1) >> 1
}
