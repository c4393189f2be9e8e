//! Did two samples come from the same law? Every test here has a null law, so that its false alarm rate is the
//! stated one, and an effect with a lower confidence limit, so that a big sample does not make a small change loud.
//!
//! All tests compare counts over the same bins: `reference` against `current`. Natural logarithms throughout.

use serde::{Deserialize, Serialize};

use crate::special::{chi_square_survival, kolmogorov_survival, normal_quantile};

/// Cells expected to hold less than this are pooled with their neighbours: below it no chi-square law holds.
const MIN_EXPECTED: f64 = 5.0;
/// Confidence of [`DriftTest::effect_lower`], one-sided.
const CONFIDENCE: f64 = 0.95;

/// What a drift test found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DriftTest {
    /// The statistic in the units of its null law.
    pub statistic: f64,
    /// Degrees of freedom of that law; 0 when it has none.
    pub degrees: f64,
    /// Probability of a statistic at least this large when nothing has changed.
    pub p_value: f64,
    /// How much changed, in the units of the test (stability index, distance).
    pub effect: f64,
    /// Lower 95 % confidence limit of the effect.
    pub effect_lower: f64,
}

/// Population stability index, `Σ (p−q) ln(p/q)` over shares smoothed by half a count.
///
/// Without change it follows `(1/N + 1/M) χ²` with one degree less than bins (Yurdakul 2018). `design_effect` ≥ 1
/// says by how much the rows' dependence inflates that. `None` when either side is empty or only one cell is left.
pub fn psi(reference: &[u64], current: &[u64], design_effect: f64) -> Option<DriftTest> {
    let cells = Cells::pool(reference, current)?;
    let index = cells.shares().map(|(p, q)| (p - q) * (p / q).ln()).sum();
    Some(cells.scaled_chi_square(index, 1.0, design_effect, |effect| effect))
}

/// Jensen-Shannon distance (square root of the divergence, natural logarithm, at most 0.833).
///
/// Without change its square follows `(1/N + 1/M) χ² / 8`.
pub fn jensen_shannon(reference: &[u64], current: &[u64], design_effect: f64) -> Option<DriftTest> {
    let cells = Cells::pool(reference, current)?;
    // Shares as they are: the middle of both is never 0 where one of them is not, so nothing needs smoothing.
    let part = |p: f64, m: f64| if p > 0.0 { p * (p / m).ln() } else { 0.0 };
    let divergence = cells
        .cells
        .iter()
        .map(|(r, c)| (r / cells.reference_total, c / cells.current_total))
        .map(|(p, q)| (part(p, (p + q) / 2.0) + part(q, (p + q) / 2.0)) / 2.0)
        .sum();
    Some(cells.scaled_chi_square(divergence, 8.0, design_effect, f64::sqrt))
}

/// Two-sample homogeneity chi-square with pooled expectations: both samples are taken as noisy, unlike a goodness
/// of fit against the reference. The effect is Cramér's φ² per balanced pair of samples, on the scale of [`psi`].
pub fn homogeneity(reference: &[u64], current: &[u64], design_effect: f64) -> Option<DriftTest> {
    let cells = Cells::pool(reference, current)?;
    let (n, m) = (cells.reference_total, cells.current_total);
    let statistic: f64 = cells
        .cells
        .iter()
        .map(|(r, c)| {
            let share = (r + c) / (n + m);
            (r - n * share).powi(2) / (n * share) + (c - m * share).powi(2) / (m * share)
        })
        .sum();
    Some(cells.scaled_chi_square(statistic * cells.noise(), 1.0, design_effect, |effect| effect))
}

/// Kolmogorov-Smirnov on bins: the largest distance of the distribution functions at the bin edges. Conservative,
/// because it does not look between the edges.
pub fn kolmogorov_smirnov(reference: &[u64], current: &[u64], design_effect: f64) -> Option<DriftTest> {
    debug_assert_eq!(reference.len(), current.len(), "tests compare counts over the same bins");
    let [n, m] = [reference, current].map(|counts| counts.iter().sum::<u64>() as f64);
    if n == 0.0 || m == 0.0 || reference.len() < 2 {
        return None;
    }
    let (mut f, mut g, mut distance) = (0.0, 0.0, 0.0f64);
    for (r, c) in reference.iter().zip(current) {
        f += *r as f64 / n;
        g += *c as f64 / m;
        distance = distance.max((f - g).abs());
    }
    let root = (n * m / (n + m) / design_effect.max(1.0)).sqrt();
    // Stephens' correction makes the limit law usable from a few values on.
    let statistic = (root + 0.12 + 0.11 / root) * distance;
    let effect_lower = (distance - 1.358 / root).max(0.0);
    Some(DriftTest { statistic, degrees: 0.0, p_value: kolmogorov_survival(statistic), effect: distance, effect_lower })
}

/// Whether a share (of missing values, of positives) changed: a two-cell [`homogeneity`] test whose effect is the
/// absolute difference of the shares.
pub fn share(reference: (u64, u64), current: (u64, u64), design_effect: f64) -> Option<DriftTest> {
    let [(r, n), (c, m)] = [reference, current].map(|(hits, all)| (hits.min(all) as f64, all as f64));
    if n == 0.0 || m == 0.0 {
        return None;
    }
    let pooled = (r + c) / (n + m);
    let variance = pooled * (1.0 - pooled) * (1.0 / n + 1.0 / m) * design_effect.max(1.0);
    let effect = (r / n - c / m).abs();
    let statistic = if variance > 0.0 { effect * effect / variance } else { 0.0 };
    let effect_lower = (effect - normal_quantile(CONFIDENCE) * variance.sqrt()).max(0.0);
    Some(DriftTest { statistic, degrees: 1.0, p_value: chi_square_survival(statistic, 1.0), effect, effect_lower })
}

/// Counts over pooled cells, none of which is expected to be nearly empty.
struct Cells {
    cells: Vec<(f64, f64)>,
    reference_total: f64,
    current_total: f64,
}

impl Cells {
    fn pool(reference: &[u64], current: &[u64]) -> Option<Self> {
        debug_assert_eq!(reference.len(), current.len(), "tests compare counts over the same bins");
        let [n, m] = [reference, current].map(|counts| counts.iter().sum::<u64>() as f64);
        if n == 0.0 || m == 0.0 {
            return None;
        }
        // Enough is expected in both samples by the pooled shares, or by the reference's alone: after a total change
        // the pooled shares of what has vanished say nothing any more.
        let full =
            |(r, c): (f64, f64)| (r + c) / (n + m) * n.min(m) >= MIN_EXPECTED || r.min(r / n * m) >= MIN_EXPECTED;
        let mut cells: Vec<(f64, f64)> = Vec::with_capacity(reference.len());
        let mut open = (0.0, 0.0);
        for (r, c) in reference.iter().zip(current) {
            open = (open.0 + *r as f64, open.1 + *c as f64);
            if full(open) {
                cells.push(std::mem::take(&mut open));
            }
        }
        // What is left over at the end joins the last full cell.
        match cells.last_mut() {
            Some(last) => *last = (last.0 + open.0, last.1 + open.1),
            None => return None,
        }
        (cells.len() > 1).then_some(Self { cells, reference_total: n, current_total: m })
    }

    fn shares(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let bins = self.cells.len() as f64;
        let smooth = move |count: f64, total: f64| (count + 0.5) / (total + 0.5 * bins);
        self.cells.iter().map(move |(r, c)| (smooth(*r, self.reference_total), smooth(*c, self.current_total)))
    }

    fn noise(&self) -> f64 {
        1.0 / self.reference_total + 1.0 / self.current_total
    }

    /// For a divergence that without change follows `noise · χ² / divisor`, and with one a shifted (noncentral) law.
    fn scaled_chi_square(
        &self,
        divergence: f64,
        divisor: f64,
        design_effect: f64,
        effect: impl Fn(f64) -> f64,
    ) -> DriftTest {
        let degrees = (self.cells.len() - 1) as f64;
        let unit = self.noise() * design_effect.max(1.0) / divisor;
        let statistic = divergence.max(0.0) / unit;
        let z = normal_quantile(CONFIDENCE);
        // Noncentral chi-square: mean k + λ, variance 2(k + 2λ). The limit is the λ with X = mean + z·deviation.
        let (y, k) = (statistic - degrees, degrees);
        let inner = (4.0 * y * z * z + 4.0 * z.powi(4) + 2.0 * k * z * z).max(0.0);
        let noncentrality = if y <= 0.0 { 0.0 } else { (y + 2.0 * z * z - inner.sqrt()).max(0.0) };
        DriftTest {
            statistic,
            degrees,
            p_value: chi_square_survival(statistic, degrees),
            effect: effect(divergence.max(0.0)),
            effect_lower: effect(noncentrality * unit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bins;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    type Test = fn(&[u64], &[u64], f64) -> Option<DriftTest>;

    fn uniform(rng: &mut SmallRng, bins: usize, n: usize) -> Vec<u64> {
        let mut counts = vec![0; bins];
        (0..n).for_each(|_| counts[rng.random_range(0..bins)] += 1);
        counts
    }

    fn simulate(test: Test, bins: usize, n: usize, m: usize, rounds: usize) -> Vec<DriftTest> {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut pair = || (uniform(&mut rng, bins, n), uniform(&mut rng, bins, m));
        (0..rounds).map(|_| pair()).filter_map(|(r, c)| test(&r, &c, 1.0)).collect()
    }

    fn mean(values: impl Iterator<Item = f64> + Clone) -> f64 {
        values.clone().sum::<f64>() / values.count() as f64
    }

    #[test]
    fn without_change_each_test_alarms_at_the_stated_rate() {
        for (name, test) in [("psi", psi as Test), ("js", jensen_shannon), ("homogeneity", homogeneity)] {
            for (bins, n, m) in [(10, 500, 500), (20, 5_000, 500), (50, 2_000, 2_000)] {
                let found = simulate(test, bins, n, m, 4_000);
                for alpha in [0.05, 0.01] {
                    let rate = mean(found.iter().map(|t| f64::from(u8::from(t.p_value < alpha))));
                    // Four standard errors of a share over 4 000 rounds, plus what the asymptotic law is off by.
                    let slack = 4.0 * (alpha * (1.0 - alpha) / 4_000.0_f64).sqrt() + 0.2 * alpha;
                    assert!((rate - alpha).abs() < slack, "{name} {bins} {n} {m}: {rate} for {alpha}");
                }
                let covered = mean(found.iter().map(|t| f64::from(u8::from(t.effect_lower > 0.0))));
                assert!(covered < 0.075, "{name}: the lower limit excludes no change in {covered} of cases");
            }
        }
    }

    #[test]
    fn kolmogorov_smirnov_on_bins_is_conservative_but_not_blind() {
        let found = simulate(kolmogorov_smirnov, 64, 1_000, 1_000, 2_000);
        let rate = mean(found.iter().map(|t| f64::from(u8::from(t.p_value < 0.05))));
        assert!((0.02..0.055).contains(&rate), "{rate}");
    }

    #[test]
    fn null_levels_agree_with_published_simulations() {
        let small = simulate(psi, 10, 100, 100, 4_000);
        assert!((mean(small.iter().map(|t| t.effect)) - 0.18).abs() < 0.02);
        let mut large: Vec<f64> = simulate(psi, 10, 5_000, 5_000, 4_000).iter().map(|t| t.effect).collect();
        large.sort_by(f64::total_cmp);
        assert!((large[3_800] - 0.0068).abs() < 0.0004, "95 % point {}", large[3_800]);
        // The square root of a chi-square mean with 49 degrees: 0.1106 at n = 1001, 0.0495 at n = 5000.
        for (n, level) in [(1_001, 0.1106), (5_000, 0.0495)] {
            let found = mean(simulate(jensen_shannon, 50, n, n, 1_000).iter().map(|t| t.effect));
            assert!((found - level).abs() < 0.002, "{found} for {level}");
        }
    }

    #[test]
    fn a_shifted_sample_is_found_and_its_effect_limit_lies_below_the_truth() {
        let mut rng = SmallRng::seed_from_u64(3);
        let mut normal = |shift: f32| {
            let sum: f32 = (0..12).map(|_| rng.random::<f32>()).sum();
            sum - 6.0 + shift
        };
        let before: Vec<f32> = (0..20_000).map(|_| normal(0.0)).collect();
        let after: Vec<f32> = (0..2_000).map(|_| normal(0.5)).collect();
        let bins = Bins::from_quantiles(&before, 20);
        let [before, after] = [&before, &after].map(|values| crate::Histogram::of(&bins, values).counts);
        for test in [psi as Test, jensen_shannon, homogeneity, kolmogorov_smirnov] {
            let found = test(&before, &after, 1.0).unwrap();
            assert!(found.p_value < 1e-6 && found.effect_lower > 0.0 && found.effect_lower < found.effect);
        }
        // A shift of half a standard deviation is a stability index of 0.25.
        let found = psi(&before, &after, 1.0).unwrap();
        assert!(found.effect_lower < 0.25 && found.effect > 0.2, "{found:?}");
    }

    #[test]
    fn a_total_change_is_found_even_against_a_small_reference() {
        let (before, after) = ([10, 10, 10, 10], [0, 0, 0, 2_800]);
        for test in [psi as Test, jensen_shannon, homogeneity, kolmogorov_smirnov] {
            let found = test(&before, &after, 1.0).unwrap();
            assert!(found.p_value < 1e-6 && found.effect_lower > 0.25, "{found:?}");
        }
    }

    #[test]
    fn dependent_rows_are_discounted_by_their_design_effect() {
        let (before, after) = ([500, 500], [560, 440]);
        let [plain, discounted] = [1.0, 4.0].map(|effect| homogeneity(&before, &after, effect).unwrap());
        assert!(plain.p_value < 0.01 && discounted.p_value > 0.05);
        assert!((plain.effect - discounted.effect).abs() < 1e-12, "the effect itself stays");
    }

    #[test]
    fn empty_and_single_cells_have_no_test() {
        assert_eq!(psi(&[0, 0], &[1, 2], 1.0), None);
        assert_eq!(psi(&[10], &[10], 1.0), None);
        assert_eq!(psi(&[100, 1], &[100, 0], 1.0), None, "the rare cell is pooled away");
        assert_eq!(share((0, 0), (1, 2), 1.0), None);
    }

    #[test]
    fn a_share_that_moved_is_found_and_equal_shares_are_not() {
        assert!(share((10, 1_000), (100, 1_000), 1.0).unwrap().effect_lower > 0.06);
        assert_eq!(share((0, 1_000), (0, 1_000), 1.0).unwrap().p_value, 1.0);
    }
}
