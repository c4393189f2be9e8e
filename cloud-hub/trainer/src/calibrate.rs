//! From logits to probabilities that mean what they say, and from probabilities to decisions.

use crate::spec::DecisionRule;
use crate::truth::Truth;

/// probability = sigmoid(slope × logit + offset); folded into the last layer of the graph.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    /// Above 0, so the ranking stays.
    pub slope: f64,
    /// Shift of the log odds: undoes the weight of positive rows.
    pub offset: f64,
}

const ROUNDS: usize = 50;
/// Below this a slope says that the logits carry nothing; the ranking is kept all the same.
const LEAST_SLOPE: f64 = 0.05;

impl Calibration {
    /// Platt's method: logistic regression of the truth on the logit, with his smoothed targets, by Newton's method.
    pub fn fit(logits: &[f32], truth: Truth<'_>) -> Self {
        // Weights of mean 1: a sample is worth the rows that it has, not those that they stand for.
        let scale = truth.labels.len() as f64 / truth.total();
        let positives = truth.positives() * scale;
        let negatives = truth.labels.len() as f64 - positives;
        let (yes, no) = ((positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0));
        let mut found = Self { slope: 1.0, offset: 0.0 };
        let mut loss = found.loss(logits, truth, yes, no);
        for _ in 0..ROUNDS {
            let (mut g, mut h) = ([0.0; 2], [1e-9, 0.0, 1e-9]);
            for (row, (logit, label)) in logits.iter().zip(truth.labels).enumerate() {
                let x = f64::from(*logit);
                let p = found.probability(*logit);
                let counts = truth.weight(row) * scale;
                let error = counts * (p - if *label { yes } else { no });
                let weight = counts * p * (1.0 - p);
                g = [g[0] + error * x, g[1] + error];
                h = [h[0] + weight * x * x, h[1] + weight * x, h[2] + weight];
            }
            let determinant = h[0] * h[2] - h[1] * h[1];
            if determinant.abs() < 1e-12 {
                break;
            }
            let step = [(h[2] * g[0] - h[1] * g[1]) / determinant, (h[0] * g[1] - h[1] * g[0]) / determinant];
            // Newton may overshoot far from the minimum: halve the step until the loss falls.
            let (mut scale, before) = (1.0, loss);
            let improved = loop {
                let trial = Self { slope: found.slope - scale * step[0], offset: found.offset - scale * step[1] };
                let at = trial.loss(logits, truth, yes, no);
                if at < loss {
                    (found, loss) = (trial, at);
                    break true;
                }
                scale /= 2.0;
                if scale < 1e-6 {
                    break false;
                }
            };
            if !improved || before - loss < 1e-12 * before {
                break;
            }
        }
        Self { slope: found.slope.max(LEAST_SLOPE), ..found }
    }

    /// The calibrated probability of a logit.
    pub fn probability(&self, logit: f32) -> f64 {
        1.0 / (1.0 + (-(self.slope * f64::from(logit) + self.offset)).exp())
    }

    fn loss(&self, logits: &[f32], truth: Truth<'_>, yes: f64, no: f64) -> f64 {
        truth.mean(|row| {
            let z = self.slope * f64::from(logits[row]) + self.offset;
            let target = if truth.labels[row] { yes } else { no };
            z.max(0.0) + (-z.abs()).exp().ln_1p() - target * z
        })
    }
}

/// The threshold that `rule` picks on these rows.
pub fn threshold(rule: DecisionRule, scores: &[f32], truth: Truth<'_>) -> f32 {
    if let DecisionRule::Threshold(at) = rule {
        return at as f32;
    }
    // Where each distinct score would stand as the threshold: alarms raised, and how many of them are right.
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let positives = truth.positives();
    let (mut alarms, mut right, mut at) = (0.0, 0.0, Vec::new());
    for group in order.chunk_by(|a, b| scores[*a] == scores[*b]) {
        alarms += group.iter().map(|row| truth.weight(*row)).sum::<f64>();
        right += group.iter().filter(|row| truth.labels[**row]).map(|row| truth.weight(*row)).sum::<f64>();
        at.push((scores[group[0]], alarms, right));
    }
    let highest = at.first().map_or(1.0, |first| first.0);
    let best = at.iter().max_by(|a, b| f1(a.1, a.2, positives).total_cmp(&f1(b.1, b.2, positives)));
    let best_f1 = best.map_or(highest, |best| best.0);
    match rule {
        DecisionRule::Threshold(_) | DecisionRule::BestF1 => best_f1,
        DecisionRule::AlarmShare(share) => {
            let most = share * truth.total();
            // Nothing may be alarmed: above the highest score.
            at.iter().rev().find(|(_, alarms, _)| *alarms <= most).map_or(highest + f32::EPSILON, |found| found.0)
        }
        DecisionRule::Precision(wanted) => {
            at.iter().rev().find(|(_, alarms, right)| right / alarms >= wanted).map_or(best_f1, |found| found.0)
        }
    }
}

fn f1(alarms: f64, right: f64, positives: f64) -> f64 {
    2.0 * right / (alarms + positives).max(1.0)
}

/// Scores of a graph's outputs.
pub fn scores(outputs: &[f32], truth: Truth<'_>) -> Option<crate::result::Scores> {
    Some(crate::result::Scores {
        rows: truth.labels.len(),
        positives: truth.labels.iter().filter(|label| **label).count(),
        auc_roc: truth.auc_roc(outputs)?,
        average_precision: truth.average_precision(outputs)?,
        log_loss: truth.log_loss(outputs)?,
        mean_output: truth.mean(|row| f64::from(outputs[row])),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    fn drawn(slope: f64, offset: f64) -> (Vec<f32>, Vec<bool>) {
        let mut rng = StdRng::seed_from_u64(1);
        let truth = Calibration { slope, offset };
        (0..40_000)
            .map(|_| {
                let logit = rng.random_range(-6.0f32..4.0);
                (logit, rng.random_bool(truth.probability(logit)))
            })
            .unzip()
    }

    #[test]
    fn calibration_finds_the_slope_and_offset_that_made_the_labels() {
        let (logits, labels) = drawn(0.6, -2.5);
        let found = Calibration::fit(&logits, Truth::of(&labels));
        assert!((found.slope - 0.6).abs() < 0.03 && (found.offset + 2.5).abs() < 0.06, "{found:?}");
    }

    #[test]
    fn calibration_never_turns_the_ranking_around() {
        let (logits, labels) = drawn(-1.0, 0.0);
        assert!(Calibration::fit(&logits, Truth::of(&labels)).slope > 0.0);
        let separated = Calibration::fit(&[-1.0, -2.0, 1.0, 2.0], Truth::of(&[false, false, true, true]));
        assert!(separated.slope.is_finite() && separated.offset.is_finite(), "{separated:?}");
    }

    #[test]
    fn each_rule_picks_its_threshold() {
        let scores = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95];
        let labels = [false, false, false, false, false, true, false, true, true, true];
        let pick = |rule| threshold(rule, &scores, Truth::of(&labels));
        assert_eq!(pick(DecisionRule::BestF1), 0.6);
        assert_eq!(pick(DecisionRule::Threshold(0.25)), 0.25);
        assert_eq!(pick(DecisionRule::AlarmShare(0.2)), 0.9);
        assert_eq!(pick(DecisionRule::Precision(1.0)), 0.8);
        assert!(pick(DecisionRule::AlarmShare(0.0)) > 0.95);
    }

    /// Of the negatives a fifth was sent, and every positive.
    #[test]
    fn a_sample_with_its_weights_gives_what_all_rows_would_have_given() {
        let (logits, labels) = drawn(0.6, -1.0);
        let mut rng = StdRng::seed_from_u64(9);
        let sent: Vec<usize> = (0..labels.len()).filter(|row| labels[*row] || rng.random_bool(0.2)).collect();
        let weights: Vec<f64> = sent.iter().map(|row| if labels[*row] { 1.0 } else { 5.0 }).collect();
        let (some, known): (Vec<f32>, Vec<bool>) = sent.iter().map(|row| (logits[*row], labels[*row])).unzip();
        let truth = Truth { labels: &known, weights: &weights };
        let (found, naive) = (Calibration::fit(&some, truth), Calibration::fit(&some, Truth::of(&known)));
        assert!((found.slope - 0.6).abs() < 0.04 && (found.offset + 1.0).abs() < 0.08, "{found:?}");
        assert!((naive.offset + 1.0).abs() > 1.0, "{naive:?} would pass");
        let sigmoid = |logits: &[f32]| logits.iter().map(|logit| found.probability(*logit) as f32).collect::<Vec<_>>();
        let (all, part) = (sigmoid(&logits), sigmoid(&some));
        let near = |a: f64, b: f64, by: f64| assert!((a - b).abs() < by, "{a} and {b}");
        let (whole, sampled) = (scores(&all, Truth::of(&labels)).unwrap(), scores(&part, truth).unwrap());
        near(whole.auc_roc, sampled.auc_roc, 0.01);
        near(whole.average_precision, sampled.average_precision, 0.02);
        near(whole.log_loss, sampled.log_loss, 0.01);
        near(whole.mean_output, sampled.mean_output, 0.01);
        let alarms = DecisionRule::AlarmShare(0.1);
        let (at, of_sample) = (threshold(alarms, &all, Truth::of(&labels)), threshold(alarms, &part, truth));
        near(at.into(), of_sample.into(), 0.02);
        let unweighted = threshold(alarms, &part, Truth::of(&known));
        assert!((at - unweighted).abs() > 0.05, "{unweighted} would pass for {at}");
    }
}
