//! The arithmetic of all reports.

use std::time::Duration;

use serde::Serialize;

/// Durations of the same thing done again and again, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// How often it was done.
    pub repetitions: usize,
    /// The fastest: what the code can do when the machine leaves it alone.
    pub min: f64,
    /// Half were at least as fast.
    pub p50: f64,
    /// All but one in a hundred were at least as fast; the slowest when there are fewer.
    pub p99: f64,
}

impl Spread {
    /// Sums up; `None` of nothing.
    pub fn of(seconds: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut seconds: Vec<f64> = seconds.into_iter().collect();
        seconds.sort_by(f64::total_cmp);
        let (&min, repetitions) = (seconds.first()?, seconds.len());
        // The nearest rank: a quantile is a duration that occurred.
        let rank = |share: f64| seconds[((share * repetitions as f64).ceil() as usize).clamp(1, repetitions) - 1];
        Some(Self { repetitions, min, p50: rank(0.5), p99: rank(0.99) })
    }

    /// Sums up durations.
    pub fn of_durations(times: &[Duration]) -> Option<Self> {
        Self::of(times.iter().map(Duration::as_secs_f64))
    }
}

/// A duration with three figures and its unit.
pub fn seconds(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.2} ms", s * 1e3),
        s if s >= 1e-6 => format!("{:.1} us", s * 1e6),
        s => format!("{:.0} ns", s * 1e9),
    }
}

/// A whole number with its thousands apart.
pub fn count(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A size in units of 10^6 bytes.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// How two tables of the same figures differ.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Agreement {
    /// Rows compared.
    pub rows: usize,
    /// Largest difference of two values.
    pub largest: f32,
    /// Largest difference in the rows that agree.
    pub largest_within: f32,
    /// Rows that do not agree: a value differs by more than [`TOLERANCE`] of its size.
    pub rows_beyond: usize,
}

/// Differences below this share of a value (or of 1, if it is smaller) are rounding.
pub const TOLERANCE: f32 = 1e-4;

impl Agreement {
    /// Compares two tables row by row.
    pub fn of(ours: &[f32], theirs: &[f32], width: usize) -> anyhow::Result<Self> {
        let (found, expected) = (theirs.len(), ours.len());
        anyhow::ensure!(found == expected, "the peer's table has {found} values, ours {expected}");
        let mut agreement = Self { rows: expected / width, largest: 0.0, largest_within: 0.0, rows_beyond: 0 };
        for (ours, theirs) in ours.chunks(width).zip(theirs.chunks(width)) {
            let (mut largest, mut beyond) = (0.0_f32, false);
            for (a, b) in ours.iter().zip(theirs) {
                let difference = (a - b).abs();
                beyond |= difference.is_nan() || difference > TOLERANCE * b.abs().max(1.0);
                largest = largest.max(difference);
            }
            agreement.largest = agreement.largest.max(largest);
            match beyond {
                true => agreement.rows_beyond += 1,
                false => agreement.largest_within = agreement.largest_within.max(largest),
            }
        }
        Ok(agreement)
    }
}

/// The mean of what a Prometheus histogram took in between two readings of its text, in its unit.
pub fn histogram_mean(before: &str, after: &str, name: &str) -> Option<f64> {
    let read = |text: &str, suffix: &str| -> Option<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(suffix))?;
        line.trim().parse().ok()
    };
    let grown = |suffix: &str| Some(read(after, suffix)? - read(before, suffix).unwrap_or(0.0));
    let (sum, count) = (grown("_sum")?, grown("_count")?);
    (count > 0.0).then(|| sum / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_durations_that_occurred() {
        let hundred = Spread::of((1..=100).rev().map(f64::from)).unwrap();
        assert_eq!((hundred.min, hundred.p50, hundred.p99), (1.0, 50.0, 99.0));
        let one = Spread::of([3.0]).unwrap();
        assert_eq!((one.repetitions, one.min, one.p50, one.p99), (1, 3.0, 3.0, 3.0));
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of_durations(&[Duration::from_millis(2)]).unwrap().p50, 0.002);
    }

    #[test]
    fn numbers_are_printed_with_their_units() {
        assert_eq!(
            [seconds(2.5), seconds(0.25), seconds(2.5e-5), seconds(3e-8)].join(" "),
            "2.50 s 250.00 ms 25.0 us 30 ns"
        );
        assert_eq!([count(7.0), count(1234.4), count(1_234_567.0)].join("; "), "7; 1 234; 1 234 567");
        assert_eq!(megabytes(2_500_000), "2.5 MB");
    }

    #[test]
    fn rounding_agrees_and_anything_else_is_counted() {
        let agreement = Agreement::of(&[1.0, 1000.0, 3.0, 4.0], &[1.00005, 1000.01, 3.0, 5.0], 2).unwrap();
        assert_eq!((agreement.rows, agreement.rows_beyond, agreement.largest), (2, 1, 1.0));
        assert!(agreement.largest_within < 0.02);
        assert_eq!(Agreement::of(&[f32::NAN], &[1.0], 1).unwrap().rows_beyond, 1);
        assert!(Agreement::of(&[1.0], &[], 1).is_err());
    }

    #[test]
    fn a_histograms_mean_is_of_what_came_between() {
        let before = "x_commit_seconds_sum 1.0\nx_commit_seconds_count 10\n";
        let after = "x_commit_seconds_sum 1.5\nx_commit_seconds_count 20\n";
        assert_eq!(histogram_mean(before, after, "x_commit_seconds"), Some(0.05));
        assert_eq!(histogram_mean("", before, "x_commit_seconds"), Some(0.1));
        assert_eq!(histogram_mean(after, after, "x_commit_seconds"), None);
        assert_eq!(histogram_mean(before, after, "y"), None);
    }
}
