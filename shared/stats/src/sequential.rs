//! Tests that may be looked at after every observation without raising their false alarm rate.
//!
//! Each gives an e-value: under "no harm" its expectation is at most 1 at any time, so it passes `1/α` ever with
//! probability at most `α` (Ville).

use crate::special::ln_beta;

/// Parameters of the uniform prior over the share under the alternative.
const PRIOR: (f64, f64) = (1.0, 1.0);

/// Logarithm of the e-value against "a hit falls on this arm with probability `share`", after `hits` of `total`.
///
/// For rare failures: given `total` failures in two arms, those of an arm with a share `w` of the traffic are
/// Binomial(total, w) when the arms are alike. Exact, no normal approximation.
pub fn ln_binomial_e_value(hits: u64, total: u64, share: f64) -> f64 {
    assert!(hits <= total, "{hits} hits of {total}");
    assert!(share > 0.0 && share < 1.0, "a share strictly between 0 and 1 is needed, found {share}");
    let (a, b) = PRIOR;
    let (x, rest) = (hits as f64, (total - hits) as f64);
    ln_beta(a + x, b + rest) - ln_beta(a, b) - x * share.ln() - rest * (1.0 - share).ln()
}

/// Failures of two arms that serve at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Arm {
    /// Predictions (or whatever may fail).
    pub trials: u64,
    /// Those that failed.
    pub failures: u64,
}

impl Arm {
    /// Share that failed; `None` without trials.
    pub fn rate(self) -> Option<f64> {
        (self.trials > 0).then(|| self.failures as f64 / self.trials as f64)
    }
}

/// Logarithm of the e-value for "`canary` fails more often than `control`". Zero or less while the canary fails no
/// more often: a better canary is no harm.
pub fn ln_harm(canary: Arm, control: Arm) -> f64 {
    let (total, trials) = (canary.failures + control.failures, canary.trials + control.trials);
    if total == 0 || canary.trials == 0 || control.trials == 0 {
        return 0.0;
    }
    let share = canary.trials as f64 / trials as f64;
    let e = ln_binomial_e_value(canary.failures, total, share);
    if canary.failures as f64 > share * total as f64 { e } else { e.min(0.0) }
}

/// Logarithm of the e-value against "`canary` fails at least at the rate `tolerated`": evidence that the harm, if
/// any, is within bounds.
pub fn ln_within(canary: Arm, tolerated: f64) -> f64 {
    if tolerated >= 1.0 {
        return f64::INFINITY;
    }
    if canary.trials == 0 || tolerated <= 0.0 {
        return 0.0;
    }
    let e = ln_binomial_e_value(canary.failures, canary.trials, tolerated);
    if (canary.failures as f64) < tolerated * canary.trials as f64 { e } else { e.min(0.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    /// Ten looks; the canary gets `n` requests a look, the control nine times as many.
    fn aborts(base: f64, canary_rate: f64, n: u64, rounds: u32, alpha: f64) -> f64 {
        let mut rng = SmallRng::seed_from_u64(5);
        let mut draw = |trials: u64, rate: f64| (0..trials).filter(|_| rng.random_bool(rate)).count() as u64;
        let aborted = (0..rounds).filter(|_| {
            let (mut canary, mut control) = (Arm::default(), Arm::default());
            let mut worst = f64::NEG_INFINITY;
            for _ in 0..10 {
                canary = Arm { trials: canary.trials + n, failures: canary.failures + draw(n, canary_rate) };
                control = Arm { trials: control.trials + 9 * n, failures: control.failures + draw(9 * n, base) };
                worst = worst.max(ln_harm(canary, control));
            }
            worst >= (1.0 / alpha).ln()
        });
        aborted.count() as f64 / f64::from(rounds)
    }

    #[test]
    fn a_harmless_canary_is_stopped_no_more_often_than_stated_and_a_doubling_is_caught() {
        for base in [0.02, 0.04] {
            let rate = aborts(base, base, 100, 1_000, 0.05);
            assert!(rate <= 0.05, "harmless at {base}: {rate}");
        }
        assert!(aborts(0.02, 0.04, 1_000, 100, 0.05) > 0.99);
        assert!(aborts(0.02, 0.04, 100, 300, 0.05) > 0.5);
        assert!(aborts(0.02, 0.01, 1_000, 100, 0.05) == 0.0, "a better canary is no harm");
    }

    #[test]
    fn no_failures_prove_harm_within_bounds_once_there_is_enough_exposure() {
        let after = |trials| ln_within(Arm { trials, failures: 0 }, 0.02);
        assert!(after(100) < 20f64.ln());
        assert!(after(500) > 20f64.ln());
        assert!(ln_within(Arm { trials: 500, failures: 10 }, 0.02) < 20f64.ln());
        assert!(ln_within(Arm { trials: 500, failures: 50 }, 0.02) <= 0.0);
    }

    #[test]
    fn harm_within_bounds_is_not_proved_by_chance() {
        let mut rng = SmallRng::seed_from_u64(9);
        let rounds = 500;
        let proved = (0..rounds).filter(|_| {
            let mut arm = Arm::default();
            (0..2_000).any(|_| {
                arm.trials += 1;
                arm.failures += u64::from(rng.random_bool(0.02));
                ln_within(arm, 0.02) >= 20f64.ln()
            })
        });
        let rate = proved.count() as f64 / f64::from(rounds);
        assert!(rate <= 0.05, "{rate}");
    }
}
