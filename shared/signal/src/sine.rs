//! A quarter of a sine, made by the compiler: twiddle factors and the Hann window are read from it.

use crate::MAX_WINDOW;

/// Steps of the table in a quarter turn.
const STEPS: usize = MAX_WINDOW / 4;
/// Fraction bits of its values. 1 itself must fit an `i32`.
pub(crate) const SINE_BITS: u32 = 30;

static QUARTER: [i32; STEPS + 1] = quarter();

const fn quarter() -> [i32; STEPS + 1] {
    let mut table = [0; STEPS + 1];
    let mut step = 0;
    while step <= STEPS {
        let x = core::f64::consts::FRAC_PI_2 * step as f64 / STEPS as f64;
        table[step] = (sine(x) * (1_i64 << SINE_BITS) as f64 + 0.5) as i32;
        step += 1;
    }
    table
}

/// Taylor's series up to x²¹: within π/2 its error is below 2⁻⁵⁰, far under half a unit of the table.
const fn sine(x: f64) -> f64 {
    let (mut sum, mut term, mut n) = (x, x, 1);
    while n <= 19 {
        term = -term * x * x / ((n + 1) * (n + 2)) as f64;
        sum += term;
        n += 2;
    }
    sum
}

/// sin and cos of `turn` / `of` turns in units of 2⁻³⁰; `of` is a power of two up to [`MAX_WINDOW`], `turn` below
/// half of it.
#[inline]
pub(crate) fn sin_cos(turn: usize, of: usize) -> (i32, i32) {
    let step = turn * (MAX_WINDOW / of);
    if step <= STEPS {
        (QUARTER[step], QUARTER[STEPS - step])
    } else {
        (QUARTER[2 * STEPS - step], -QUARTER[step - STEPS])
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn the_table_is_the_sine_to_half_a_unit() {
        for turn in 0..MAX_WINDOW / 2 {
            let (sin, cos) = sin_cos(turn, MAX_WINDOW);
            let (exact_sin, exact_cos) = (core::f64::consts::TAU * turn as f64 / MAX_WINDOW as f64).sin_cos();
            let one = f64::from(1 << SINE_BITS);
            assert!((f64::from(sin) - exact_sin * one).abs() < 0.51, "sine at {turn}");
            assert!((f64::from(cos) - exact_cos * one).abs() < 0.51, "cosine at {turn}");
        }
    }
}
