//! Alerts, and what they rest on: drift findings and agreement with labels.

use std::sync::Arc;

use cloud_hub_core::alert::{AlertError, AlertInput};
use cloud_hub_core::drift::{Findings, Signal, verdict};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tributary_wire::{LineName, Micros};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Instant, Json, Page, PageQuery, Path, Problem, Query, State};
use crate::hub::Hub;
use crate::lines;
use crate::monitor::{self, MonitorError, QualityFindings, read};

/// Routes of this part.
pub fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(silence))
        .routes(routes!(quality))
        .routes(routes!(drift))
}

impl From<MonitorError> for Problem {
    fn from(error: MonitorError) -> Self {
        match error {
            MonitorError::Alert(AlertError::Resolved) => Self::conflict(error),
            MonitorError::Alert(AlertError::Past { .. }) => Self::unacceptable(error),
            other => anyhow::Error::new(other).into(),
        }
    }
}

/// Something a person should know.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Alert {
    /// Its id.
    pub id: String,
    /// What kind of thing, such as `drift` or `quality`.
    pub kind: String,
    /// What it is about, such as `card-fraud/3`.
    pub subject: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// `open`, `silenced` or `resolved`.
    pub state: String,
    /// In numbers and words.
    #[schema(value_type = Object)]
    pub detail: Value,
    /// How often its cause was seen.
    pub times: i64,
    /// When it opened, UTC microseconds.
    pub opened: i64,
    /// When it last changed, UTC microseconds.
    pub updated: i64,
    /// When its cause was gone, UTC microseconds.
    pub resolved: Option<i64>,
    /// End of the silence, UTC microseconds.
    pub silenced_until: Option<i64>,
}

impl From<monitor::Alert> for Alert {
    fn from(alert: monitor::Alert) -> Self {
        Self {
            detail: serde_json::from_str(&alert.detail).unwrap_or_default(),
            id: alert.id,
            kind: alert.kind,
            subject: alert.subject,
            severity: alert.severity,
            state: alert.state,
            times: alert.times,
            opened: alert.opened,
            updated: alert.updated,
            resolved: alert.resolved,
            silenced_until: alert.silenced_until,
        }
    }
}

/// State that an alert may be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AlertStateName {
    /// Somebody should look.
    Open,
    /// Quiet for a while.
    Silenced,
    /// Its cause is gone.
    Resolved,
}

impl AlertStateName {
    fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Silenced => "silenced",
            Self::Resolved => "resolved",
        }
    }
}

/// Which alerts.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct AlertQuery {
    /// Only those in this state.
    pub state: Option<AlertStateName>,
    /// How many at most; 100 unless given, 1000 at most.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// Alerts, newest first.
#[utoipa::path(get, path = "/alerts", tag = "monitor",
    security(("token" = ["viewer"])), params(AlertQuery),
    responses((status = 200, body = Page<Alert>), (status = "default", body = Problem)))]
async fn list(hub: State, Query(query): Query<AlertQuery>) -> Result<Json<Page<Alert>>, Problem> {
    let page = PageQuery { limit: query.limit, cursor: query.cursor };
    let (limit, before) = (page.limit()?, page.after_text()?);
    let before = (!before.is_empty()).then_some(before.as_str());
    let mut catalog = hub.catalog.reader().acquire().await?;
    let rows = read::alerts(&mut catalog, query.state.map(AlertStateName::name), before, limit + 1).await?;
    Ok(Json(Page::cut(rows.into_iter().map(Alert::from).collect(), limit, |alert| alert.id.clone())))
}

async fn find(hub: &Hub, id: &str) -> Result<monitor::Alert, Problem> {
    let mut catalog = hub.catalog.reader().acquire().await?;
    read::alert(&mut catalog, id).await?.ok_or_else(|| Problem::not_found(format!("there is no alert {id}")))
}

/// One alert.
#[utoipa::path(get, path = "/alerts/{alert}", tag = "monitor",
    security(("token" = ["viewer"])), params(("alert" = String, Path)),
    responses((status = 200, body = Alert), (status = "default", body = Problem)))]
async fn get(hub: State, Path(id): Path<String>) -> Result<Json<Alert>, Problem> {
    find(&hub, &id).await.map(|alert| Json(alert.into()))
}

/// For how long an alert should be quiet: one of the two.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Silence {
    /// Until then, UTC microseconds or a time such as `2026-01-31T12:00:00Z`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub until: Option<Instant>,
    /// For so many seconds from now.
    #[serde(default)]
    pub seconds: Option<u32>,
}

/// Keeps an alert quiet for a while. It opens again if its cause is still there then.
#[utoipa::path(post, path = "/alerts/{alert}/silence", tag = "monitor",
    security(("token" = ["operator"])), params(("alert" = String, Path)),
    request_body = Silence, responses((status = 200, body = Alert), (status = "default", body = Problem)))]
async fn silence(hub: State, Path(id): Path<String>, Json(silence): Json<Silence>) -> Result<Json<Alert>, Problem> {
    let now = hub.now();
    let until = match (silence.until, silence.seconds) {
        (Some(Instant(until)), None) => until,
        (None, Some(seconds)) => Micros(now.0 + i64::from(seconds) * Micros::SECOND),
        _ => return Err(Problem::malformed("either `until` or `seconds` is needed, not both")),
    };
    let mut catalog = hub.catalog.write().await?;
    let missing = || Problem::not_found(format!("there is no alert {id}"));
    let alert = read::alert(&mut catalog, &id).await?.ok_or_else(missing)?;
    read::change(&mut catalog, &alert, AlertInput::Silence { until }, now).await?;
    catalog.commit().await?;
    find(&hub, &id).await.map(|alert| Json(alert.into()))
}

/// Agreement with labels on one UTC day of event time.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QualityDay {
    /// Version that served.
    pub version: i64,
    /// Begin of the day, UTC microseconds.
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
    /// Area under the curve; absent unless both classes occur.
    pub auc: Option<f64>,
    /// Average precision; absent without positives.
    pub average_precision: Option<f64>,
    /// Predictions that were served, whether they were sent or sampled out: estimates from the probabilities with which
    /// they were sent, as are those below and the area. Where nothing is sampled out they are the counts.
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

/// A window of labelled days that was judged.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QualityWindow {
    /// Version that served.
    pub version: u32,
    /// First instant, UTC microseconds.
    pub start: i64,
    /// First instant after, UTC microseconds.
    pub end: i64,
    /// Labelled observations.
    pub rows: u64,
    /// Positives among them.
    pub positives: u64,
    /// Area under the curve and its standard error.
    pub auc: f64,
    /// Standard error of the area.
    pub error: f64,
    /// Average precision.
    pub average_precision: f64,
    /// What the area was compared with.
    pub baseline: f64,
    /// Whether it counts as a drop.
    pub dropped: bool,
    /// Why it was not judged, if it was not.
    pub skipped: Option<String>,
}

/// How a line agrees with its labels.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Quality {
    /// By version and day.
    pub days: Vec<QualityDay>,
    /// By version and window.
    pub windows: Vec<QualityWindow>,
}

/// A span of event time.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct Span {
    /// First instant, UTC microseconds or RFC 3339; all there is when left out.
    #[param(value_type = Option<String>)]
    pub from: Option<String>,
    /// First instant after; all there is when left out.
    #[param(value_type = Option<String>)]
    pub to: Option<String>,
}

impl Span {
    fn bounds(&self) -> Result<(i64, i64), Problem> {
        let read = |name: &str, text: &Option<String>, default: i64| match text {
            None => Ok(default),
            Some(text) => {
                let wrong =
                    |problem: String| Problem::malformed("a parameter of the query is wrong").with(name, problem);
                text.parse::<Instant>().map(|instant| instant.0.0).map_err(wrong)
            }
        };
        Ok((read("from", &self.from, i64::MIN)?, read("to", &self.to, i64::MAX)?))
    }
}

/// Agreement with labels per version, by UTC day of event time and by judged window.
#[utoipa::path(get, path = "/lines/{line}/quality", tag = "monitor",
    security(("token" = ["viewer"])), params(("line" = String, Path), Span),
    responses((status = 200, body = Quality), (status = "default", body = Problem)))]
async fn quality(hub: State, Path(line): Path<LineName>, Query(span): Query<Span>) -> Result<Json<Quality>, Problem> {
    let (from, to) = span.bounds()?;
    let mut catalog = hub.catalog.reader().acquire().await?;
    lines::get(&mut catalog, &line).await?;
    // A day belongs to the span when it begins in it.
    let first = from.div_euclid(Micros::DAY) + i64::from(from.rem_euclid(Micros::DAY) > 0);
    let last = to.div_euclid(Micros::DAY) + i64::from(to.rem_euclid(Micros::DAY) > 0);
    let days: Vec<QualityDay> = read::days(&mut catalog, &line, (first, last))
        .await?
        .into_iter()
        .map(|day| QualityDay {
            version: day.version,
            day: day.day * Micros::DAY,
            observations: day.observations,
            labelled: day.labelled,
            positives: day.positives,
            alarms: day.alarms,
            hits: day.hits,
            auc: day.auc,
            average_precision: day.average_precision,
            est_observations: day.est_observations,
            est_labelled: day.est_labelled,
            est_positives: day.est_positives,
            est_alarms: day.est_alarms,
            est_hits: day.est_hits,
        })
        .collect();
    let mut versions: Vec<u32> = days.iter().map(|day| day.version as u32).collect();
    versions.sort_unstable();
    versions.dedup();
    let mut windows = Vec::new();
    for version in versions {
        let of = (&line, tributary_wire::VersionNumber(version));
        let found: Vec<QualityFindings> = read::findings(&mut catalog, of, "quality", 1_000).await?;
        let inside = found.into_iter().filter(|window| window.findings.start >= from && window.findings.end <= to);
        windows.extend(inside.map(|window| QualityWindow {
            version,
            start: window.findings.start,
            end: window.findings.end,
            rows: window.rows,
            positives: window.positives,
            auc: window.area.auc,
            error: window.area.error,
            average_precision: window.average_precision,
            baseline: window.baseline.auc,
            dropped: window.findings.signals.iter().any(|signal| signal.drifted),
            skipped: window.findings.skipped,
        }));
    }
    Ok(Json(Quality { days, windows }))
}

/// Drift of one version.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VersionDrift {
    /// Which version.
    pub version: u32,
    /// Windows judged, oldest first: predictions, every comparison, and why one was skipped.
    #[schema(value_type = Vec<Object>)]
    pub windows: Vec<Findings>,
    /// Signals that count now.
    #[schema(value_type = Vec<Object>)]
    pub drifted: Vec<Signal>,
}

/// Drift of inputs and outputs per version, from merged sketches against the reference bins of the package.
#[utoipa::path(get, path = "/lines/{line}/drift", tag = "monitor",
    security(("token" = ["viewer"])), params(("line" = String, Path)),
    responses((status = 200, body = Vec<VersionDrift>), (status = "default", body = Problem)))]
async fn drift(hub: State, Path(line): Path<LineName>) -> Result<Json<Vec<VersionDrift>>, Problem> {
    let mut catalog = hub.catalog.reader().acquire().await?;
    let settings = lines::get(&mut catalog, &line).await?.settings.drift;
    let mut all = Vec::new();
    for version in read::versions(&mut catalog, &line).await? {
        let windows: Vec<Findings> = read::findings(&mut catalog, (&line, version), "inputs", 100).await?;
        let drifted = verdict(settings.consecutive, &windows);
        all.push(VersionDrift { version: version.0, windows, drifted });
    }
    Ok(Json(all))
}
