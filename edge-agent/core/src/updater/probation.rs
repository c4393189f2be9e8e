//! Whether a trial has passed.

use tributary_release::Probation;
use tributary_wire::TrialReport;

/// What the evidence of a trial says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Not enough evidence yet.
    Open,
    /// All bounds hold over enough predictions.
    Passed,
    /// A bound is broken, or can no longer be kept.
    Failed(String),
}

/// Judges a trial. Errors fail it as soon as even faultless predictions up to the required number could not bring
/// their share back under the bound: a broken package is gone after the first few predictions, not the last.
pub fn judge(probation: &Probation, evidence: &TrialReport, timed_out: bool) -> Verdict {
    let Probation { min_predictions, max_error_share, max_latency_p99_us, output_mean_low, output_mean_high, .. } =
        *probation;
    let TrialReport { predictions, errors, latency_p99_us, output_mean } = *evidence;
    if errors as f64 > max_error_share * predictions.max(min_predictions) as f64 {
        return Verdict::Failed(format!(
            "{errors} of {predictions} predictions failed or left the output bounds, allowed is a share of {max_error_share}"
        ));
    }
    if predictions < min_predictions {
        return match timed_out {
            true => {
                Verdict::Failed(format!("probation timed out after {predictions} of {min_predictions} predictions"))
            }
            false => Verdict::Open,
        };
    }
    if latency_p99_us > max_latency_p99_us {
        return Verdict::Failed(format!("latency p99 is {latency_p99_us} us, allowed are {max_latency_p99_us} us"));
    }
    // Written so that a mean that is not a number fails as well.
    let within = output_mean >= output_mean_low && output_mean <= output_mean_high;
    if predictions > 0 && !within {
        return Verdict::Failed(format!(
            "mean output is {output_mean:.4}, expected {output_mean_low:.4} to {output_mean_high:.4}"
        ));
    }
    Verdict::Passed
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBATION: Probation = Probation {
        min_predictions: 100,
        max_error_share: 0.05,
        max_latency_p99_us: 1000,
        output_mean_low: 0.0,
        output_mean_high: 0.2,
        timeout_s: 60,
    };
    const GOOD: TrialReport = TrialReport { predictions: 100, errors: 5, latency_p99_us: 1000, output_mean: 0.1 };

    fn failure(evidence: TrialReport, timed_out: bool) -> String {
        match judge(&PROBATION, &evidence, timed_out) {
            Verdict::Failed(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_trial_passes_exactly_on_its_bounds_and_not_before_enough_predictions() {
        assert_eq!(judge(&PROBATION, &GOOD, false), Verdict::Passed);
        assert_eq!(judge(&PROBATION, &GOOD, true), Verdict::Passed);
        assert_eq!(judge(&PROBATION, &TrialReport { predictions: 99, ..GOOD }, false), Verdict::Open);
    }

    #[test]
    fn each_broken_bound_is_named() {
        assert!(failure(TrialReport { errors: 6, ..GOOD }, false).contains("6 of 100"));
        assert!(failure(TrialReport { latency_p99_us: 1001, ..GOOD }, false).contains("1001 us"));
        assert!(failure(TrialReport { output_mean: 0.3, ..GOOD }, false).contains("0.3000"));
        assert!(failure(TrialReport { output_mean: f64::NAN, ..GOOD }, false).contains("NaN"));
        assert!(failure(TrialReport { predictions: 12, errors: 0, ..GOOD }, true).contains("12 of 100"));
    }

    #[test]
    fn a_package_that_only_fails_is_undone_long_before_the_required_number() {
        let few = TrialReport { predictions: 6, errors: 6, ..GOOD };
        assert!(matches!(judge(&PROBATION, &few, false), Verdict::Failed(_)));
    }
}
