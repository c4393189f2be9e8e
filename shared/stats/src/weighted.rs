//! How well scores put positives above negatives over everything, judged from a sample.
//!
//! Every row stands for as many as its weight says, the inverse of the probability with which it was taken. With equal
//! weights all of these are those of [`crate::ranking`].

use std::collections::{BTreeSet, HashMap};

use crate::ranking::{Difference, resampled};
use crate::special::normal_quantile;

/// Area under the receiver operating characteristic. `None` unless both classes occur, every score is a number and every
/// weight is above 0 and finite.
pub fn auc_roc(scores: &[f32], labels: &[bool], weights: &[f64]) -> Option<f64> {
    Some(Placements::of(scores, labels, weights)?.auc)
}

/// [`auc_roc`] with its standard error, linearised: the share of each row in the area varies with the row. Of the
/// clusterings, each of which gives every row its cluster, the variance that they add to independent rows is added up.
pub fn auc_with_clustered_error(
    scores: &[f32],
    labels: &[bool],
    weights: &[f64],
    clusterings: &[&[u64]],
) -> Option<(f64, f64)> {
    let Placements { auc, shares } = Placements::of(scores, labels, weights)?;
    let positives = labels.iter().filter(|label| **label).count() as f64;
    let negatives = labels.len() as f64 - positives;
    let spread = |class: bool, count: f64| {
        let own = shares.iter().zip(labels).filter(|(_, label)| **label == class);
        // A single row has no spread to estimate: it is certain of nothing.
        if count < 2.0 { 1.0 } else { own.map(|(share, _)| share * share).sum::<f64>() * count / (count - 1.0) }
    };
    let independent = spread(true, positives) + spread(false, negatives);
    let mut total = independent;
    for clusters in clusterings {
        assert_eq!(clusters.len(), labels.len(), "one cluster per row");
        let mut sums: HashMap<u64, f64> = HashMap::new();
        let mut hit = BTreeSet::new();
        for ((share, cluster), label) in shares.iter().zip(*clusters).zip(labels) {
            *sums.entry(*cluster).or_default() += share;
            if *label {
                hit.insert(*cluster);
            }
        }
        let units = hit.len() as f64;
        let correction = if units > 1.0 { units / (units - 1.0) } else { return Some((auc, 1.0)) };
        // In the order of the clusters, so that the sum is the same on every machine.
        let mut squares: Vec<(u64, f64)> = sums.into_iter().map(|(cluster, sum)| (cluster, sum * sum)).collect();
        squares.sort_unstable_by_key(|(cluster, _)| *cluster);
        let clustered = correction * squares.iter().map(|(_, square)| square).sum::<f64>();
        total += (clustered - independent).max(0.0);
    }
    Some((auc, total.sqrt()))
}

/// Average precision: the mean over positives of the precision at their score; equal scores count as one step. `None`
/// without positives.
pub fn average_precision(scores: &[f32], labels: &[bool], weights: &[f64]) -> Option<f64> {
    check(scores, labels, weights)?;
    let all: f64 = weights.iter().zip(labels).filter(|(_, label)| **label).map(|(weight, _)| weight).sum();
    if all <= 0.0 {
        return None;
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let (mut hits, mut seen, mut sum) = (0.0, 0.0, 0.0);
    for group in order.chunk_by(|a, b| scores[*a] == scores[*b]) {
        let here: f64 = group.iter().filter(|at| labels[**at]).map(|at| weights[*at]).sum();
        seen += group.iter().map(|at| weights[*at]).sum::<f64>();
        hits += here;
        sum += here * hits / seen;
    }
    Some(sum / all)
}

/// Mean log loss of probabilities.
pub fn log_loss(probabilities: &[f32], labels: &[bool], weights: &[f64]) -> Option<f64> {
    check(probabilities, labels, weights)?;
    let loss = |((p, label), weight): ((&f32, &bool), &f64)| {
        let p = f64::from(*p).clamp(1e-7, 1.0 - 1e-7);
        -weight * (if *label { p } else { 1.0 - p }).ln()
    };
    let sum: f64 = probabilities.iter().zip(labels).zip(weights).map(loss).sum();
    (!labels.is_empty()).then(|| sum / weights.iter().sum::<f64>())
}

/// Difference of two areas on the same rows, with a two-sided interval: the shares of each row in both areas are paired.
pub fn auc_difference(
    champion: &[f32],
    challenger: &[f32],
    labels: &[bool],
    weights: &[f64],
    confidence: f64,
) -> Option<Difference> {
    let (a, b) = (Placements::of(champion, labels, weights)?, Placements::of(challenger, labels, weights)?);
    let spread = |class: bool| {
        let paired = a.shares.iter().zip(&b.shares).zip(labels).filter(|(_, label)| **label == class);
        let squares: Vec<f64> = paired.map(|((a, b), _)| (b - a) * (b - a)).collect();
        let count = squares.len() as f64;
        if count < 2.0 { 1.0 } else { squares.iter().sum::<f64>() * count / (count - 1.0) }
    };
    let (difference, error) = (b.auc - a.auc, (spread(true) + spread(false)).sqrt());
    let radius = normal_quantile(0.5 + confidence / 2.0) * error;
    let (lower, upper) = (difference - radius, difference + radius);
    Some(Difference { champion: a.auc, challenger: b.auc, difference, lower, upper })
}

/// Difference of two average precisions on the same rows, with a percentile interval from `rounds` resamplings of
/// positives and negatives, each row with its weight.
pub fn average_precision_difference(
    [champion, challenger]: [&[f32]; 2],
    labels: &[bool],
    weights: &[f64],
    confidence: f64,
    (rounds, seed): (usize, u64),
) -> Option<Difference> {
    let before = average_precision(champion, labels, weights)?;
    let after = average_precision(challenger, labels, weights)?;
    let (lower, upper) = resampled(labels, confidence, (rounds, seed), |picked| {
        let (labels, weights): (Vec<bool>, Vec<f64>) = picked.iter().map(|i| (labels[*i], weights[*i])).unzip();
        let [a, b] = [champion, challenger].map(|scores| picked.iter().map(|i| scores[*i]).collect::<Vec<_>>());
        Some(average_precision(&b, &labels, &weights)? - average_precision(&a, &labels, &weights)?)
    })?;
    Some(Difference { champion: before, challenger: after, difference: after - before, lower, upper })
}

fn check(scores: &[f32], labels: &[bool], weights: &[f64]) -> Option<()> {
    assert!(scores.len() == labels.len() && scores.len() == weights.len(), "one label and one weight per score");
    let sound = |weight: &f64| weight.is_finite() && *weight > 0.0;
    (!scores.iter().any(|score| score.is_nan()) && weights.iter().all(sound)).then_some(())
}

/// The area, and what each row adds to it beyond its part of the mean.
struct Placements {
    auc: f64,
    shares: Vec<f64>,
}

impl Placements {
    fn of(scores: &[f32], labels: &[bool], weights: &[f64]) -> Option<Self> {
        check(scores, labels, weights)?;
        let of = |class: bool| -> f64 {
            weights.iter().zip(labels).filter(|(_, label)| **label == class).map(|(weight, _)| weight).sum()
        };
        let (positive, negative) = (of(true), of(false));
        if positive <= 0.0 || negative <= 0.0 {
            return None;
        }
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_unstable_by(|a, b| scores[*a].total_cmp(&scores[*b]));
        // For each positive the share of negatives below it, and the reverse; ties count half.
        let mut placements = vec![0.0; scores.len()];
        let (mut below_positive, mut below_negative) = (0.0, 0.0);
        for group in order.chunk_by(|a, b| scores[*a] == scores[*b]) {
            let sum =
                |class: bool| -> f64 { group.iter().filter(|at| labels[**at] == class).map(|at| weights[*at]).sum() };
            let (here_positive, here_negative) = (sum(true), sum(false));
            for at in group {
                placements[*at] = match labels[*at] {
                    true => (below_negative + here_negative / 2.0) / negative,
                    false => 1.0 - (below_positive + here_positive / 2.0) / positive,
                };
            }
            below_positive += here_positive;
            below_negative += here_negative;
        }
        let rows = || weights.iter().zip(labels).zip(&placements);
        let auc = rows().filter(|((_, label), _)| **label).map(|((weight, _), at)| weight * at).sum::<f64>() / positive;
        let share = |((weight, label), at): ((&f64, &bool), &f64)| {
            weight / if *label { positive } else { negative } * (at - auc)
        };
        Some(Self { auc, shares: rows().map(share).collect() })
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::ranking;

    /// Scores in steps, so that there are ties; positives score higher.
    fn rows(rng: &mut SmallRng, count: usize) -> (Vec<f32>, Vec<bool>) {
        (0..count)
            .map(|_| {
                let label = rng.random_bool(0.2);
                let score = rng.random_range(0..40) + if label { 8 } else { 0 };
                (score as f32 / 50.0, label)
            })
            .unzip()
    }

    #[test]
    fn equal_weights_change_nothing() {
        let mut rng = SmallRng::seed_from_u64(1);
        let (scores, labels) = rows(&mut rng, 500);
        let clusters: Vec<u64> = (0..500).map(|_| rng.random_range(0..60)).collect();
        for weight in [1.0, 7.5] {
            let weights = vec![weight; 500];
            let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} and {b}");
            near(auc_roc(&scores, &labels, &weights).unwrap(), ranking::auc_roc(&scores, &labels).unwrap());
            near(
                average_precision(&scores, &labels, &weights).unwrap(),
                ranking::average_precision(&scores, &labels).unwrap(),
            );
            let (_, found) = auc_with_clustered_error(&scores, &labels, &weights, &[]).unwrap();
            near(found, ranking::auc_with_error(&scores, &labels).unwrap().1);
            let (_, found) = auc_with_clustered_error(&scores, &labels, &weights, &[&clusters]).unwrap();
            near(found, ranking::auc_with_clustered_error(&scores, &labels, &[&clusters]).unwrap().1);
            near(log_loss(&scores, &labels, &weights).unwrap(), ranking::log_loss(&scores, &labels).unwrap());
            let other: Vec<f32> = scores.iter().map(|score| score * rng.random_range(0.9..1.0)).collect();
            let same = |found: Difference, expected: Difference| {
                near(found.difference, expected.difference);
                near(found.lower, expected.lower);
                near(found.upper, expected.upper);
            };
            same(
                auc_difference(&scores, &other, &labels, &weights, 0.95).unwrap(),
                ranking::auc_difference(&scores, &other, &labels, 0.95).unwrap(),
            );
            same(
                average_precision_difference([&scores, &other], &labels, &weights, 0.95, (20, 1)).unwrap(),
                ranking::average_precision_difference(&scores, &other, &labels, 0.95, 20, 1).unwrap(),
            );
        }
    }

    #[test]
    fn a_weight_of_two_is_the_row_twice() {
        let mut rng = SmallRng::seed_from_u64(2);
        let (scores, labels) = rows(&mut rng, 80);
        let weights: Vec<f64> = (0..80).map(|_| f64::from(rng.random_range(1..4))).collect();
        let again = |at: usize| std::iter::repeat_n(at, weights[at] as usize);
        let all: Vec<usize> = (0..80).flat_map(again).collect();
        let (many, truth): (Vec<f32>, Vec<bool>) = all.iter().map(|at| (scores[*at], labels[*at])).unzip();
        let near = |a: Option<f64>, b: Option<f64>| assert!((a.unwrap() - b.unwrap()).abs() < 1e-12, "{a:?} and {b:?}");
        near(auc_roc(&scores, &labels, &weights), ranking::auc_roc(&many, &truth));
        near(average_precision(&scores, &labels, &weights), ranking::average_precision(&many, &truth));
    }

    #[test]
    fn a_sample_that_prefers_some_rows_gives_the_area_of_all_and_an_honest_error() {
        let mut rng = SmallRng::seed_from_u64(3);
        let (scores, labels) = rows(&mut rng, 20_000);
        let truth = ranking::auc_roc(&scores, &labels).unwrap();
        let (mut weighted, mut naive, mut within) = (0.0, 0.0, 0);
        for _ in 0..200 {
            // Scores near the middle are taken ten times as often.
            let taken: Vec<(usize, f64)> = (0..scores.len())
                .map(|at| (at, if (scores[at] - 0.4).abs() < 0.1 { 0.3 } else { 0.03 }))
                .filter(|(_, probability)| rng.random_bool(*probability))
                .collect();
            let of = |at: &(usize, f64)| (scores[at.0], labels[at.0]);
            let (s, l): (Vec<f32>, Vec<bool>) = taken.iter().map(of).unzip();
            let weights: Vec<f64> = taken.iter().map(|(_, probability)| 1.0 / probability).collect();
            let (auc, error) = auc_with_clustered_error(&s, &l, &weights, &[]).unwrap();
            weighted += auc / 200.0;
            naive += ranking::auc_roc(&s, &l).unwrap() / 200.0;
            within += u32::from((auc - truth).abs() < 2.0 * error);
        }
        assert!((weighted - truth).abs() < 0.003, "{weighted} instead of {truth}");
        assert!((naive - truth).abs() > 0.05, "{naive} would pass for {truth}");
        assert!((180..=200).contains(&within), "{within} of 200 within two standard errors");
    }

    #[test]
    fn without_both_classes_or_with_a_weight_that_is_none_there_is_no_area() {
        assert_eq!(auc_roc(&[0.1, 0.2], &[true, true], &[1.0, 1.0]), None);
        assert_eq!(auc_roc(&[0.1, 0.2], &[true, false], &[1.0, 0.0]), None);
        assert_eq!(auc_roc(&[f32::NAN, 0.2], &[true, false], &[1.0, 1.0]), None);
        assert_eq!(average_precision(&[0.1], &[false], &[1.0]), None);
    }
}
