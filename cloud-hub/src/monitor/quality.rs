//! Agreement of served predictions with labels, by UTC day of event time and version.

use std::collections::{BTreeMap, HashMap};

use cloud_hub_core::drift::Findings;
use cloud_hub_core::quality::{Area, Day, Settings, judge, windows};
use sqlx::SqliteConnection;
use tributary_stats::ranking::{auc_roc, auc_with_clustered_error, auc_with_error, average_precision};
use tributary_stats::weighted;
use tributary_wire::{LineName, Micros, Role, VersionNumber};

use super::MonitorError;
use super::findings::{self, QualityFindings};
use super::records::{self, Labelled, Observed};

/// A day whose labels have not come within this many days of newer observations is judged without them.
const LATE_DAYS: i64 = 45;

/// What one version did on some days, joined with the truth.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Joined {
    /// Predictions of the version.
    pub observations: u64,
    /// Outputs of those that have a label.
    pub scores: Vec<f32>,
    /// Their labels.
    pub labels: Vec<bool>,
    /// For each entity of the feature view, to whom each of them belongs; empty where nobody asked.
    pub clusters: Vec<Vec<u64>>,
    /// Positive decisions among them.
    pub alarms: u64,
    /// Of those, how many were right.
    pub hits: u64,
    /// How many others each of the labelled predictions stands for, itself among them: the inverse of the probability
    /// with which it was sent.
    pub weights: Vec<f64>,
    /// The same counts over all that was served, estimated.
    pub estimates: Estimates,
}

/// Estimates of counts over everything that was served, whether it was sent or sampled out: unbiased, for every
/// prediction counts as often as the inverse of its probability says (Horvitz and Thompson 1952).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Estimates {
    /// Predictions of the version.
    pub observations: f64,
    /// Those of which the label is known.
    pub labelled: f64,
    /// True labels among these.
    pub positives: f64,
    /// Positive decisions among the labelled.
    pub alarms: f64,
    /// Of those, how many are right.
    pub hits: f64,
}

/// Joins observations of primary packages with labels by event id. Of several labels of an event the one known last
/// counts. `entities` are the keys of events: predictions about one customer are not independent of each other.
pub fn join(
    observations: impl IntoIterator<Item = Observed>,
    labels: impl IntoIterator<Item = Labelled>,
    entities: &HashMap<String, Vec<u64>>,
) -> BTreeMap<(String, i64), Joined> {
    let mut truth: HashMap<String, (i64, bool)> = HashMap::new();
    for label in labels {
        let known = truth.entry(label.event_id).or_insert((i64::MIN, false));
        if label.known_at >= known.0 {
            *known = (label.known_at, label.label);
        }
    }
    let primary = Role::primary();
    let mut joined: BTreeMap<(String, i64), Joined> = BTreeMap::new();
    for seen in observations {
        // Version 0 is the declared fallback: it has no output to judge.
        if seen.version <= 0 || seen.role != primary.as_str() {
            continue;
        }
        let version = joined.entry((seen.line, seen.version)).or_default();
        version.observations += 1;
        let weight = 1.0 / seen.inclusion;
        version.estimates.observations += weight;
        let (Some((_, label)), Some(output)) = (truth.get(&seen.event_id), seen.output) else { continue };
        version.scores.push(output);
        version.labels.push(*label);
        version.alarms += u64::from(seen.decision);
        version.hits += u64::from(seen.decision && *label);
        version.weights.push(weight);
        let counted = |counts: bool| if counts { weight } else { 0.0 };
        version.estimates.labelled += weight;
        version.estimates.positives += counted(*label);
        version.estimates.alarms += counted(seen.decision);
        version.estimates.hits += counted(seen.decision && *label);
        let Some(kinds) = entities.values().next().map(Vec::len) else { continue };
        version.clusters.resize_with(kinds, Vec::new);
        // An event that the lake does not hold stands for itself.
        let own = records::number(&seen.event_id);
        let keys = entities.get(&seen.event_id);
        for (kind, clusters) in version.clusters.iter_mut().enumerate() {
            clusters.push(keys.and_then(|keys| keys.get(kind)).copied().unwrap_or(own));
        }
    }
    joined
}

impl Joined {
    /// Whether every prediction stands for itself alone.
    fn is_whole(&self) -> bool {
        self.weights.iter().all(|weight| *weight == 1.0)
    }

    /// Area under the curve over all that was served.
    fn auc(&self) -> Option<f64> {
        match self.is_whole() {
            true => auc_roc(&self.scores, &self.labels),
            false => weighted::auc_roc(&self.scores, &self.labels, &self.weights),
        }
    }

    /// The same with its standard error: for independent rows, and for rows that hang together by entity.
    fn auc_with_errors(&self) -> Option<(f64, f64, f64)> {
        let clusters: Vec<&[u64]> = self.clusters.iter().map(Vec::as_slice).collect();
        let (scores, labels) = (&self.scores, &self.labels);
        let ((auc, naive), (_, clustered)) = match self.is_whole() {
            true => (auc_with_error(scores, labels)?, auc_with_clustered_error(scores, labels, &clusters)?),
            false => (
                weighted::auc_with_clustered_error(scores, labels, &self.weights, &[])?,
                weighted::auc_with_clustered_error(scores, labels, &self.weights, &clusters)?,
            ),
        };
        Some((auc, naive, clustered))
    }

    /// Average precision over all that was served.
    fn average_precision(&self) -> Option<f64> {
        match self.is_whole() {
            true => average_precision(&self.scores, &self.labels),
            false => weighted::average_precision(&self.scores, &self.labels, &self.weights),
        }
    }

    fn positives(&self) -> u64 {
        self.labels.iter().filter(|label| **label).count() as u64
    }
}

/// Writes what was found for a day.
pub async fn store_day(
    catalog: &mut SqliteConnection,
    day: i64,
    joined: &BTreeMap<(String, i64), Joined>,
) -> Result<(), MonitorError> {
    sqlx::query("delete from quality_days where day = $1").bind(day).execute(&mut *catalog).await?;
    for ((line, version), joined) in joined {
        sqlx::query(
            "insert into quality_days (line, version, day, observations, labelled, positives, alarms, hits, auc,
             average_precision, est_observations, est_labelled, est_positives, est_alarms, est_hits)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        )
        .bind(line)
        .bind(version)
        .bind(day)
        .bind(joined.observations as i64)
        .bind(joined.labels.len() as i64)
        .bind(joined.positives() as i64)
        .bind(joined.alarms as i64)
        .bind(joined.hits as i64)
        .bind(joined.auc())
        .bind(joined.average_precision())
        .bind(joined.estimates.observations)
        .bind(joined.estimates.labelled)
        .bind(joined.estimates.positives)
        .bind(joined.estimates.alarms)
        .bind(joined.estimates.hits)
        .execute(&mut *catalog)
        .await?;
    }
    Ok(())
}

/// One day of one version, as shown.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct DayRow {
    /// Version that served.
    pub version: i64,
    /// Days since 1970-01-01.
    pub day: i64,
    /// Predictions.
    pub observations: i64,
    /// Of those, how many have a label.
    pub labelled: i64,
    /// Of those, how many are positive.
    pub positives: i64,
    /// Positive decisions among the labelled.
    pub alarms: i64,
    /// Of those, how many were right.
    pub hits: i64,
    /// Area under the curve; none unless both classes occur.
    pub auc: Option<f64>,
    /// Average precision; none without positives.
    pub average_precision: Option<f64>,
    /// Predictions that were served, sampled out or not: estimates, as are those below.
    pub est_observations: f64,
    /// Of those, how many have a label.
    pub est_labelled: f64,
    /// Of those, how many are positive.
    pub est_positives: f64,
    /// Positive decisions among the labelled.
    pub est_alarms: f64,
    /// Of those, how many were right.
    pub est_hits: f64,
}

/// Days of a line from `from` to before `to`.
pub async fn days(
    catalog: &mut SqliteConnection,
    line: &LineName,
    (from, to): (i64, i64),
) -> Result<Vec<DayRow>, MonitorError> {
    let query = "select version, day, observations, labelled, positives, alarms, hits, auc, average_precision,
                 est_observations, est_labelled, est_positives, est_alarms, est_hits
                 from quality_days where line = $1 and day >= $2 and day < $3 order by day, version";
    Ok(sqlx::query_as(query).bind(line.as_str()).bind(from).bind(to).fetch_all(catalog).await?)
}

/// The windows of a version that are settled and not judged yet, as first and last day.
pub async fn due(
    catalog: &mut SqliteConnection,
    (line, version): (&LineName, VersionNumber),
    settings: &Settings,
) -> Result<Vec<(i64, i64)>, MonitorError> {
    let query = "select max(end_time) from findings where line = $1 and version = $2 and kind = 'quality'";
    let judged: Option<i64> =
        sqlx::query_scalar(query).bind(line.as_str()).bind(i64::from(version.0)).fetch_one(&mut *catalog).await?;
    let first = judged.map_or(i64::MIN, |end| end.div_euclid(Micros::DAY));
    let rows = days(catalog, line, (i64::MIN, i64::MAX)).await?;
    let newest = rows.iter().map(|row| row.day).max().unwrap_or(i64::MIN);
    let own: Vec<Day> = rows
        .iter()
        .filter(|row| row.version == i64::from(version.0) && row.day >= first)
        .map(|row| Day {
            day: row.day,
            observations: row.observations as u64,
            labelled: row.labelled as u64,
            positives: row.positives as u64,
        })
        .collect();
    Ok(windows(settings, &own, |day| day.saturating_add(LATE_DAYS) < newest))
}

/// Judges one window of joined rows against the baseline, or makes it the baseline when there is none, and keeps it.
pub async fn judge_window(
    catalog: &mut SqliteConnection,
    (line, version): (&LineName, VersionNumber),
    settings: &Settings,
    trained: Option<Area>,
    (first, last): (i64, i64),
    joined: &Joined,
    now: Micros,
) -> Result<Findings, MonitorError> {
    let (start, end) = (first * Micros::DAY, (last + 1) * Micros::DAY);
    let rows = joined.labels.len() as u64;
    let earlier: Vec<QualityFindings> = findings::load(catalog, (line, version), "quality", u32::MAX).await?;
    let found = joined.auc_with_errors();
    let naive = found.map(|(_, naive, _)| naive);
    let area = found.map(|(auc, _, error)| Area { auc, error });
    // The held-out score comes as counts only; its rows hang together as much as these do.
    let dependence = area.zip(naive).map_or(1.0, |(area, naive)| (area.error / naive.max(1e-9)).max(1.0));
    let trained = trained.map(|trained| Area { error: trained.error * dependence, ..trained });
    let average_precision = joined.average_precision().unwrap_or(0.0);
    let skip = |reason: &str| {
        let skipped = Some(reason.to_owned());
        Findings { start, end, predictions: rows, skipped, signals: Vec::new() }
    };
    let measured = earlier.iter().find(|window| window.area.error.is_finite() && window.area.error > 0.0);
    let baseline = trained.or(measured.map(|window| window.area));
    let (findings, baseline, area) = match (area, baseline) {
        (None, baseline) => {
            let unknown = Area { auc: 0.5, error: 0.0 };
            (skip("its labels are all the same"), baseline.unwrap_or(unknown), unknown)
        }
        (Some(area), None) => {
            (skip("the first window of a version without a held-out score: the baseline"), area, area)
        }
        (Some(area), Some(baseline)) => (judge(settings, baseline, start, end, rows, area), baseline, area),
    };
    let kept = QualityFindings {
        findings: findings.clone(),
        baseline,
        area,
        average_precision,
        rows,
        positives: joined.positives(),
    };
    findings::store(catalog, (line, version), "quality", (start, end), &kept, now).await?;
    Ok(findings)
}
