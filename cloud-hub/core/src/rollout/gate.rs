//! The test between waves: sequential, against a control that serves at the same time.

use tributary_stats::sequential::{Arm, ln_harm, ln_within};

use super::Policy;

/// What devices did since the wave began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evidence {
    /// Those that run the release.
    pub canary: Arm,
    /// Those that do not.
    pub control: Arm,
}

/// What the evidence says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// The harm, if any, is within bounds.
    Pass,
    /// Too little is known.
    Wait(String),
    /// The release fails more often than what served beside it.
    Harm(String),
}

/// Looks at the evidence. May be asked as often as one likes: every answer holds at any time.
pub fn gate(policy: &Policy, evidence: &Evidence) -> Gate {
    let Evidence { canary, control } = *evidence;
    let enough = (1.0 / policy.alpha).ln();
    if ln_harm(canary, control) >= enough {
        return Gate::Harm(format!(
            "{} of {} predictions failed, beside {} of {} without the release",
            canary.failures, canary.trials, control.failures, control.trials
        ));
    }
    if canary.trials < policy.min_predictions {
        return Gate::Wait(format!("{} of {} predictions made", canary.trials, policy.min_predictions));
    }
    let tolerated = control.rate().unwrap_or(0.0) + policy.max_harm;
    // Certainty of the opposite is harm as well, even where no control serves beside the release.
    if control.trials == 0 && ln_exceeds(canary, tolerated) >= enough {
        let Arm { trials, failures } = canary;
        return Gate::Harm(format!("{failures} of {trials} predictions failed, {tolerated:.3} of them are tolerated"));
    }
    if ln_within(canary, tolerated) >= enough {
        Gate::Pass
    } else {
        let Arm { trials, failures } = canary;
        Gate::Wait(format!("{failures} of {trials} predictions failed: not yet certain to be under {tolerated:.3}"))
    }
}

fn ln_exceeds(arm: Arm, tolerated: f64) -> f64 {
    if tolerated >= 1.0 || arm.trials == 0 || arm.failures as f64 <= tolerated * arm.trials as f64 {
        return 0.0;
    }
    tributary_stats::sequential::ln_binomial_e_value(arm.failures, arm.trials, tolerated)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(canary: (u64, u64), control: (u64, u64)) -> Gate {
        let arm = |(failures, trials)| Arm { trials, failures };
        gate(&Policy::default(), &Evidence { canary: arm(canary), control: arm(control) })
    }

    #[test]
    fn exposure_without_failures_passes_once_it_is_enough() {
        assert!(matches!(look((0, 0), (0, 0)), Gate::Wait(_)));
        assert!(matches!(look((0, 499), (0, 5_000)), Gate::Wait(_)));
        assert_eq!(look((0, 500), (0, 5_000)), Gate::Pass);
        assert_eq!(look((0, 500), (0, 0)), Gate::Pass, "the last wave has no control");
    }

    #[test]
    fn a_release_that_fails_more_often_than_its_control_is_harm_before_the_exposure_is_enough() {
        assert!(matches!(look((40, 200), (10, 2_000)), Gate::Harm(_)));
        assert!(matches!(look((100, 500), (0, 0)), Gate::Harm(_)));
    }

    #[test]
    fn a_release_that_fails_as_often_as_its_control_is_not_harm() {
        assert_eq!(look((100, 5_000), (1_000, 50_000)), Gate::Pass);
        assert!(matches!(look((15, 510), (100, 5_000)), Gate::Wait(_)));
    }
}
