use super::*;
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const SCORES: [f32; 8] = [0.1, 0.4, 0.35, 0.8, 0.35, 0.9, 0.05, 0.4];
const LABELS: [bool; 8] = [false, false, true, true, false, true, false, true];

fn by_pairs(scores: &[f32], labels: &[bool]) -> f64 {
    let (mut sum, mut pairs) = (0.0, 0.0);
    for (i, j) in (0..scores.len()).flat_map(|i| (0..scores.len()).map(move |j| (i, j))) {
        if labels[i] && !labels[j] {
            pairs += 1.0;
            sum += match scores[i].total_cmp(&scores[j]) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Less => 0.0,
            };
        }
    }
    sum / pairs
}

#[test]
fn areas_and_precisions_agree_with_hand_counts() {
    assert!((auc_roc(&SCORES, &LABELS).unwrap() - by_pairs(&SCORES, &LABELS)).abs() < 1e-12);
    // Steps from the top: 0.9 and 0.8 hit (1/1, 2/2), 0.4 twice with one hit (3/4), 0.35 twice with one hit (4/6).
    let expected = (1.0 + 1.0 + 0.75 + 4.0 / 6.0) / 4.0;
    assert!((average_precision(&SCORES, &LABELS).unwrap() - expected).abs() < 1e-12);
    assert!((log_loss(&[0.5, 0.5], &[true, false]).unwrap() - 2f64.ln()).abs() < 1e-7);
}

#[test]
fn metrics_that_are_not_defined_are_none() {
    assert_eq!(auc_roc(&[0.1, 0.2], &[true, true]), None);
    assert_eq!(average_precision(&[0.1, 0.2], &[false, false]), None);
    assert_eq!(auc_roc(&[f32::NAN, 0.2], &[true, false]), None);
    assert_eq!(log_loss(&[], &[]), None);
    assert_eq!(card_precision_at_k(&[], 100), None);
}

#[test]
fn cards_caught_on_earlier_days_are_left_out() {
    let row = |day, card, score, fraud| CardScore { day, card, score, fraud };
    let rows = [
        row(1, 1, 0.9, true),
        row(1, 1, 0.1, false),
        row(1, 2, 0.8, false),
        row(1, 3, 0.7, true),
        // Card 1 was caught; 2 and 3 (missed at k = 2) are the top two left.
        row(2, 1, 0.99, true),
        row(2, 2, 0.6, true),
        row(2, 3, 0.5, true),
        row(2, 4, 0.4, true),
    ];
    assert_eq!(card_precision_at_k(&rows, 2), Some((0.5 + 1.0) / 2.0));
    assert_eq!(card_precision_at_k(&rows, 4), Some((2.0 / 4.0 + 2.0 / 4.0) / 2.0));
}

fn simulated(seed: u64, rows: usize, share: f64, lift: f32) -> (Vec<f32>, Vec<bool>) {
    let mut rng = SmallRng::seed_from_u64(seed);
    (0..rows)
        .map(|_| {
            let label = rng.random_bool(share);
            let noise: f32 = (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0;
            (noise + if label { lift } else { 0.0 }, label)
        })
        .unzip()
}

#[test]
fn equal_models_differ_significantly_only_at_the_stated_rate() {
    let rounds = 600;
    let (mut significant, mut misses) = (0, 0);
    // Φ(1.5/√2) = 0.8556: the true area for a lift of 1.5 standard deviations.
    let truth = 1.0 - crate::normal_survival(1.5 / 2f64.sqrt());
    for seed in 0..rounds {
        let (scores, labels) = simulated(seed, 600, 0.1, 1.5);
        let mut rng = SmallRng::seed_from_u64(seed + 10_000);
        let mut blur = || scores.iter().map(|s| s + rng.random_range(-1.0..1.0f32)).collect::<Vec<_>>();
        let (one, other) = (blur(), blur());
        let difference = auc_difference(&one, &other, &labels, 0.95).unwrap();
        significant += u32::from(difference.lower > 0.0 || difference.upper < 0.0);
        let (auc, error) = auc_with_error(&scores, &labels).unwrap();
        misses += u32::from((auc - truth).abs() > 1.96 * error);
    }
    for (name, count) in [("difference", significant), ("error", misses)] {
        let rate = f64::from(count) / rounds as f64;
        assert!((0.02..0.09).contains(&rate), "{name}: {rate}");
    }
}

#[test]
fn clustered_rows_are_known_less_surely_and_the_error_says_so() {
    let truth = 1.0 - crate::normal_survival(1.5 / 2f64.sqrt());
    let rounds = 300;
    let (mut naive, mut clustered) = (0, 0);
    for seed in 0..rounds {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut normal = || (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0;
        // Forty terminals with six positives each; most of a positive's score is its terminal's.
        let (mut scores, mut labels, mut terminals) = (Vec::new(), Vec::new(), Vec::new());
        for terminal in 0..40 {
            let common = normal();
            for _ in 0..6 {
                scores.push(1.5 + 0.8 * common + 0.6 * normal());
                labels.push(true);
                terminals.push(terminal);
            }
        }
        for row in 0..2_000 {
            scores.push(normal());
            labels.push(false);
            terminals.push(1_000 + row);
        }
        let (auc, error) = auc_with_error(&scores, &labels).unwrap();
        let (same, wider) = auc_with_clustered_error(&scores, &labels, &[&terminals]).unwrap();
        assert_eq!(auc, same);
        naive += u32::from((auc - truth).abs() > 1.96 * error);
        clustered += u32::from((auc - truth).abs() > 1.96 * wider);
    }
    let [naive, clustered] = [naive, clustered].map(|count| f64::from(count) / rounds as f64);
    assert!(naive > 0.15, "independent rows are assumed in vain: {naive}");
    assert!((0.02..0.09).contains(&clustered), "{clustered}");
}

#[test]
fn each_row_its_own_cluster_changes_nothing_and_a_single_cluster_says_nothing() {
    let own: Vec<u64> = (0..8).collect();
    let (_, independent) = auc_with_error(&SCORES, &LABELS).unwrap();
    let (_, error) = auc_with_clustered_error(&SCORES, &LABELS, &[&own]).unwrap();
    assert!((error / independent - 1.0).abs() < 0.35, "{error} {independent}");
    assert_eq!(auc_with_clustered_error(&SCORES, &LABELS, &[&[1; 8]]).unwrap().1, 1.0);
}

#[test]
fn a_better_model_is_told_from_a_worse_one_by_both_metrics() {
    let (good, labels) = simulated(1, 4_000, 0.05, 2.0);
    let mut rng = SmallRng::seed_from_u64(2);
    let poor: Vec<f32> = good.iter().map(|s| s + rng.random_range(-3.0..3.0f32)).collect();
    let auc = auc_difference(&poor, &good, &labels, 0.95).unwrap();
    let precision = average_precision_difference(&poor, &good, &labels, 0.95, 200, 42).unwrap();
    assert!(auc.lower > 0.0 && precision.lower > 0.0, "{auc:?} {precision:?}");
    assert_eq!(precision, average_precision_difference(&poor, &good, &labels, 0.95, 200, 42).unwrap());
    let same = auc_difference(&good, &good, &labels, 0.95).unwrap();
    assert_eq!((same.lower, same.upper), (0.0, 0.0));
}

proptest! {
    #[test]
    fn the_area_counts_pairs_whatever_the_ties(
        rows in prop::collection::vec((0u8..6, any::<bool>()), 2..60),
    ) {
        let (scores, labels): (Vec<f32>, Vec<bool>) = rows.iter().map(|(s, l)| (f32::from(*s), *l)).unzip();
        if let Some(auc) = auc_roc(&scores, &labels) {
            prop_assert!((auc - by_pairs(&scores, &labels)).abs() < 1e-9);
            prop_assert!((auc_with_error(&scores, &labels).unwrap().0 - auc).abs() < 1e-9);
        }
    }
}
