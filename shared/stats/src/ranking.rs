//! How well scores put positives above negatives, and whether one model does it better than another.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::special::normal_quantile;

/// Area under the receiver operating characteristic: the probability that a positive scores above a negative, ties
/// counting half. `None` unless both classes occur and every score is a number.
pub fn auc_roc(scores: &[f32], labels: &[bool]) -> Option<f64> {
    let (positives, negatives) = classes(scores, labels)?;
    let ranks = midranks(scores);
    let sum: f64 = ranks.iter().zip(labels).filter(|(_, label)| **label).map(|(rank, _)| rank).sum();
    Some((sum - positives * (positives + 1.0) / 2.0) / (positives * negatives))
}

/// [`auc_roc`] with its standard error after DeLong.
pub fn auc_with_error(scores: &[f32], labels: &[bool]) -> Option<(f64, f64)> {
    let parts = Placements::of(scores, labels)?;
    let error = (variance(&parts.positive) / parts.positive.len() as f64
        + variance(&parts.negative) / parts.negative.len() as f64)
        .sqrt();
    Some((parts.auc, error))
}

/// [`auc_roc`] with its standard error when rows of one cluster (a customer, a terminal) belong together: the
/// clusters, not the rows, are the sampling units (Obuchowski 1997). Each of `clusterings` gives every row its cluster;
/// the variance that they add to independent rows is added up (Cameron, Gelbach and Miller 2011). Never smaller than
/// [`auc_with_error`].
pub fn auc_with_clustered_error(scores: &[f32], labels: &[bool], clusterings: &[&[u64]]) -> Option<(f64, f64)> {
    let (auc, error) = auc_with_error(scores, labels)?;
    let independent = error * error;
    let parts = Placements::of(scores, labels)?;
    let (m, n) = (parts.positive.len() as f64, parts.negative.len() as f64);
    let mut total = independent;
    for clusters in clusterings {
        assert_eq!(clusters.len(), labels.len(), "one cluster per row");
        let mut sums: HashMap<u64, f64> = HashMap::new();
        let (mut positive, mut negative) = (parts.positive.iter(), parts.negative.iter());
        let mut hit: BTreeSet<u64> = BTreeSet::new();
        for (label, cluster) in labels.iter().zip(*clusters) {
            let share = if *label {
                hit.insert(*cluster);
                positive.next().map_or(0.0, |placement| (placement - auc) / m)
            } else {
                negative.next().map_or(0.0, |placement| (placement - auc) / n)
            };
            *sums.entry(*cluster).or_default() += share;
        }
        // Clusters that hold a positive decide how much is known where positives are rare; a single one says nothing.
        let units = hit.len() as f64;
        let correction = if units > 1.0 { units / (units - 1.0) } else { return Some((auc, 1.0)) };
        let clustered = correction * sums.values().map(|sum| sum * sum).sum::<f64>();
        total += (clustered - independent).max(0.0);
    }
    Some((auc, total.sqrt()))
}

/// Average precision: the mean over positives of the precision at their score. Equal scores count as one step, so the
/// order of the rows does not matter. `None` without positives or with a score that is not a number.
pub fn average_precision(scores: &[f32], labels: &[bool]) -> Option<f64> {
    let positives = check(scores, labels)?;
    if positives == 0 {
        return None;
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let (mut hits, mut sum) = (0usize, 0.0);
    let mut seen = 0usize;
    for group in order.chunk_by(|a, b| scores[*a] == scores[*b]) {
        let here = group.iter().filter(|i| labels[**i]).count();
        seen += group.len();
        hits += here;
        sum += here as f64 * hits as f64 / seen as f64;
    }
    Some(sum / positives as f64)
}

/// Mean logarithmic loss of probabilities, cut to `[1e-7, 1 - 1e-7]`.
pub fn log_loss(probabilities: &[f32], labels: &[bool]) -> Option<f64> {
    check(probabilities, labels)?;
    let loss = |(p, label): (&f32, &bool)| {
        let p = f64::from(*p).clamp(1e-7, 1.0 - 1e-7);
        -(if *label { p } else { 1.0 - p }).ln()
    };
    (!labels.is_empty()).then(|| probabilities.iter().zip(labels).map(loss).sum::<f64>() / labels.len() as f64)
}

/// One scored transaction of a card.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CardScore {
    /// Day of the transaction.
    pub day: i64,
    /// Which card (customer).
    pub card: i64,
    /// The model's score.
    pub score: f32,
    /// Whether the transaction was a fraud.
    pub fraud: bool,
}

/// Card precision at `k`: for each day, of the `k` cards with the highest score that day (a card's score is that of
/// its highest transaction; cards caught on earlier days are left out), the share that had a fraud that day; then the
/// mean over days. A card is caught when it is among the `k` and had a fraud. `None` without rows.
pub fn card_precision_at_k(rows: &[CardScore], k: usize) -> Option<f64> {
    let mut days: BTreeMap<i64, HashMap<i64, (f32, bool)>> = BTreeMap::new();
    for row in rows.iter().filter(|row| !row.score.is_nan()) {
        let card = days.entry(row.day).or_default().entry(row.card).or_insert((row.score, false));
        *card = (card.0.max(row.score), card.1 || row.fraud);
    }
    let mut caught = BTreeSet::new();
    let mut sum = 0.0;
    let count = days.len();
    for cards in days.into_values() {
        let mut ranked: Vec<_> = cards.into_iter().filter(|(card, _)| !caught.contains(card)).collect();
        // Equal scores in the order of the card's number: the same answer on every machine.
        ranked.sort_by(|(card_a, a), (card_b, b)| b.0.total_cmp(&a.0).then(card_a.cmp(card_b)));
        let hits: Vec<i64> = ranked.iter().take(k).filter(|(_, (_, fraud))| *fraud).map(|(card, _)| *card).collect();
        sum += hits.len() as f64 / k as f64;
        caught.extend(hits);
    }
    (count > 0 && k > 0).then(|| sum / count as f64)
}

/// A metric of two models on the same rows, and how far apart they are beyond noise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Of the model that serves.
    pub champion: f64,
    /// Of the one that wants to.
    pub challenger: f64,
    /// Challenger less champion.
    pub difference: f64,
    /// Lower confidence limit of the difference.
    pub lower: f64,
    /// Upper confidence limit of the difference.
    pub upper: f64,
}

/// Difference of two areas under the curve on the same rows, with a two-sided interval of the given confidence
/// (DeLong, DeLong and Clarke-Pearson 1988).
pub fn auc_difference(champion: &[f32], challenger: &[f32], labels: &[bool], confidence: f64) -> Option<Difference> {
    let (a, b) = (Placements::of(champion, labels)?, Placements::of(challenger, labels)?);
    let spread = |a: &[f64], b: &[f64]| {
        let paired: Vec<f64> = a.iter().zip(b).map(|(a, b)| b - a).collect();
        variance(&paired) / paired.len() as f64
    };
    let error = (spread(&a.positive, &b.positive) + spread(&a.negative, &b.negative)).sqrt();
    let difference = b.auc - a.auc;
    let radius = normal_quantile(0.5 + confidence / 2.0) * error;
    Some(Difference {
        champion: a.auc,
        challenger: b.auc,
        difference,
        lower: difference - radius,
        upper: difference + radius,
    })
}

/// Difference of two average precisions on the same rows, with a percentile interval from `rounds` resamplings of
/// positives and negatives.
pub fn average_precision_difference(
    champion: &[f32],
    challenger: &[f32],
    labels: &[bool],
    confidence: f64,
    rounds: usize,
    seed: u64,
) -> Option<Difference> {
    let (before, after) = (average_precision(champion, labels)?, average_precision(challenger, labels)?);
    let (lower, upper) = resampled(labels, confidence, (rounds, seed), |picked| {
        let labels: Vec<bool> = picked.iter().map(|i| labels[*i]).collect();
        let [a, b] = [champion, challenger].map(|scores| picked.iter().map(|i| scores[*i]).collect::<Vec<_>>());
        Some(average_precision(&b, &labels)? - average_precision(&a, &labels)?)
    })?;
    Some(Difference { champion: before, challenger: after, difference: after - before, lower, upper })
}

/// The interval of a figure over resamplings of positives and negatives.
pub(crate) fn resampled(
    labels: &[bool],
    confidence: f64,
    (rounds, seed): (usize, u64),
    mut figure: impl FnMut(&[usize]) -> Option<f64>,
) -> Option<(f64, f64)> {
    let (positive, negative): (Vec<usize>, Vec<usize>) = (0..labels.len()).partition(|i| labels[*i]);
    let mut chance = SplitMix(seed);
    let mut figures: Vec<f64> = Vec::with_capacity(rounds);
    let mut picked: Vec<usize> = Vec::with_capacity(labels.len());
    for _ in 0..rounds.max(2) {
        picked.clear();
        for class in [&positive, &negative] {
            picked.extend((0..class.len()).map(|_| class[chance.below(class.len())]));
        }
        figures.push(figure(&picked)?);
    }
    figures.sort_by(f64::total_cmp);
    let at = |share: f64| figures[(share * (figures.len() - 1) as f64).round() as usize];
    let tail = (1.0 - confidence) / 2.0;
    Some((at(tail), at(1.0 - tail)))
}

/// Steele, Lea and Flood's generator: small, seeded, good enough to resample rows.
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(z ^ (z >> 31)) * limit as u128) >> 64) as usize
    }
}

fn check(scores: &[f32], labels: &[bool]) -> Option<usize> {
    assert_eq!(scores.len(), labels.len(), "one label per score");
    (!scores.iter().any(|score| score.is_nan())).then(|| labels.iter().filter(|label| **label).count())
}

fn classes(scores: &[f32], labels: &[bool]) -> Option<(f64, f64)> {
    let positives = check(scores, labels)?;
    let negatives = labels.len() - positives;
    (positives > 0 && negatives > 0).then_some((positives as f64, negatives as f64))
}

/// Ranks from 1; equal values share the mean of their ranks.
fn midranks(values: &[f32]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0usize;
    for group in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let rank = before as f64 + (group.len() as f64 + 1.0) / 2.0;
        group.iter().for_each(|i| ranks[*i] = rank);
        before += group.len();
    }
    ranks
}

/// DeLong's structural components: for each positive the share of negatives below it, and the reverse.
struct Placements {
    auc: f64,
    positive: Vec<f64>,
    negative: Vec<f64>,
}

impl Placements {
    fn of(scores: &[f32], labels: &[bool]) -> Option<Self> {
        let (m, n) = classes(scores, labels)?;
        let all = midranks(scores);
        let part = |class: bool| -> (Vec<f32>, Vec<f64>) {
            let rows = (0..scores.len()).filter(|i| labels[*i] == class);
            rows.map(|i| (scores[i], all[i])).unzip()
        };
        let ((positive, positive_ranks), (negative, negative_ranks)) = (part(true), part(false));
        let own = |scores: &[f32]| midranks(scores);
        let positive: Vec<f64> = positive_ranks.iter().zip(own(&positive)).map(|(all, own)| (all - own) / n).collect();
        let negative: Vec<f64> =
            negative_ranks.iter().zip(own(&negative)).map(|(all, own)| 1.0 - (all - own) / m).collect();
        Some(Self { auc: positive.iter().sum::<f64>() / m, positive, negative })
    }
}

/// Unbiased variance; a single value has no spread to estimate, so it counts as certain nothing: variance 1.
fn variance(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 1.0;
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64
}

#[cfg(test)]
#[path = "ranking_tests.rs"]
mod tests;
