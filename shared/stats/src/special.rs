//! The few special functions that null laws need. Series and continued fractions are those of Abramowitz and Stegun
//! (6.5.29, 26.4.10) and Lanczos' approximation of the gamma function.

use std::f64::consts::PI;

/// Natural logarithm of the gamma function for `x > 0`, to about fourteen digits.
pub(crate) fn ln_gamma(x: f64) -> f64 {
    const G: f64 = 7.0;
    const COEFFICIENTS: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x < 0.5 {
        return (PI / (PI * x).sin()).ln() - ln_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let sum = COEFFICIENTS[1..].iter().enumerate().fold(COEFFICIENTS[0], |sum, (i, c)| sum + c / (x + i as f64 + 1.0));
    let t = x + G + 0.5;
    0.5 * (2.0 * PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

/// Natural logarithm of the beta function.
pub(crate) fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// Upper tail of the regularised incomplete gamma function, Q(a, x).
fn gamma_tail(a: f64, x: f64) -> f64 {
    const STEPS: usize = 10_000;
    if x <= 0.0 {
        return 1.0;
    }
    let scale = (-x + a * x.ln() - ln_gamma(a)).exp();
    if x < a + 1.0 {
        let (mut term, mut sum) = (1.0 / a, 1.0 / a);
        for n in 1..STEPS {
            term *= x / (a + n as f64);
            sum += term;
            if term < sum * 1e-16 {
                break;
            }
        }
        (1.0 - sum * scale).clamp(0.0, 1.0)
    } else {
        // Lentz's method; the tiny number stands in for a zero denominator.
        const TINY: f64 = 1e-300;
        let mut b = x + 1.0 - a;
        let (mut c, mut d) = (1.0 / TINY, 1.0 / b);
        let mut h = d;
        for n in 1..STEPS {
            let an = -(n as f64) * (n as f64 - a);
            b += 2.0;
            d = an * d + b;
            d = 1.0 / if d.abs() < TINY { TINY } else { d };
            c = b + an / c;
            c = if c.abs() < TINY { TINY } else { c };
            h *= d * c;
            if (d * c - 1.0).abs() < 1e-15 {
                break;
            }
        }
        (h * scale).clamp(0.0, 1.0)
    }
}

/// Probability that a chi-square variable with `degrees` degrees of freedom exceeds `x`.
pub fn chi_square_survival(x: f64, degrees: f64) -> f64 {
    if degrees <= 0.0 { if x > 0.0 { 0.0 } else { 1.0 } } else { gamma_tail(degrees / 2.0, x / 2.0) }
}

/// Probability that a standard normal variable exceeds `z`.
pub fn normal_survival(z: f64) -> f64 {
    let tail = 0.5 * gamma_tail(0.5, z * z / 2.0);
    if z >= 0.0 { tail } else { 1.0 - tail }
}

/// The `z` that a standard normal variable stays below with probability `p`, 0 < p < 1.
pub fn normal_quantile(p: f64) -> f64 {
    assert!(p > 0.0 && p < 1.0, "a probability strictly between 0 and 1 is needed, found {p}");
    let (mut low, mut high) = (-40.0, 40.0);
    // Sixty halvings of 80 leave less than a double can tell apart.
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if normal_survival(middle) > 1.0 - p { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

/// Probability that Kolmogorov's limit variable exceeds `x`.
pub(crate) fn kolmogorov_survival(x: f64) -> f64 {
    if x < 0.2 {
        return 1.0;
    }
    let sum: f64 =
        (1..=100).map(|k| if k % 2 == 1 { 1.0 } else { -1.0 } * (-2.0 * f64::from(k * k) * x * x).exp()).sum();
    (2.0 * sum).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64, tolerance: f64) {
        assert!((found - expected).abs() <= tolerance, "{found} is not {expected}");
    }

    #[test]
    fn known_values_are_met() {
        close(ln_gamma(5.0), 24f64.ln(), 1e-12);
        close(ln_gamma(0.5), PI.sqrt().ln(), 1e-12);
        close(ln_beta(2.0, 3.0), (1.0f64 / 12.0).ln(), 1e-12);
        // Tables: the 5 % points of chi-square and of the normal law.
        close(chi_square_survival(3.841_458_820_694_124, 1.0), 0.05, 1e-10);
        close(chi_square_survival(16.918_977_604_620_45, 9.0), 0.05, 1e-10);
        close(chi_square_survival(124.342_113_404_004, 100.0), 0.05, 1e-9);
        close(chi_square_survival(1.0, 10.0), 0.999_827_884_370_044, 1e-10);
        close(normal_survival(1.959_963_984_540_054), 0.025, 1e-12);
        close(normal_quantile(0.975), 1.959_963_984_540_054, 1e-9);
        close(normal_quantile(0.01), -2.326_347_874_040_841, 1e-9);
        close(kolmogorov_survival(1.358_1), 0.05, 1e-4);
        close(kolmogorov_survival(1.627_6), 0.01, 1e-4);
    }
}
