//! Devices: who they are, what they report, in which group they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tributary_wire::{DeviceId, GroupName, MetadataVersions, Report, Withheld};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::nodes::SensorNode;
use super::{Json, Page, PageQuery, Path, Problem, Query, State};
use crate::catalog::devices;
use crate::hub::Hub;
use crate::ingest::HUB_DEVICE;
use crate::rollout::flags::Flags;
use crate::rollout::{self, refresh};
use crate::sampling::Policies;

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, put))
}

/// A device.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Device {
    /// Its id.
    pub id: String,
    /// When it was first seen, UTC microseconds.
    pub first_seen: i64,
    /// When it was last seen, UTC microseconds.
    pub last_seen: i64,
    /// Whether it is connected now.
    pub connected: bool,
    /// Labels that selectors match.
    pub labels: BTreeMap<String, String>,
    /// Its group.
    pub group: Option<String>,
    /// When its last report came, UTC microseconds.
    pub report_at: Option<i64>,
    /// Versions of the signed metadata that it has verified; absent before its first refresh, and of an older agent.
    pub metadata: Option<Metadata>,
    /// Releases that it was told to run and cannot.
    pub unfit: Vec<UnfitRelease>,
    /// The flags that its assignments carry.
    pub flags: BTreeMap<String, String>,
    /// The sampling policy that it is to keep to; absent: its own.
    pub sampling_policy: Option<String>,
    /// Number of that policy's newest change.
    pub sampling_number: Option<i64>,
    /// What it kept back of its records, by its last report; absent of an older agent.
    pub withheld: Option<WithheldView>,
    /// Sensor nodes on its serial lines, by its last report.
    pub nodes: Vec<SensorNode>,
    /// Its last report: generation, packages, state, health, resources.
    #[schema(value_type = Option<Object>)]
    pub report: Option<Value>,
}

/// Versions of the top-level metadata of the repository.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub struct Metadata {
    /// Of `root.json`.
    pub root: u64,
    /// Of `timestamp.json`.
    pub timestamp: u64,
    /// Of `snapshot.json`.
    pub snapshot: u64,
    /// Of `targets.json`.
    pub targets: u64,
}

impl From<MetadataVersions> for Metadata {
    fn from(MetadataVersions { root, timestamp, snapshot, targets }: MetadataVersions) -> Self {
        Self { root, timestamp, snapshot, targets }
    }
}

/// What a device kept back of its records since its state began.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WithheldView {
    /// Number of the policy change that is in force; 0: the device's own configuration.
    pub number: u64,
    /// Whether the device's own limits narrow that policy.
    pub limited: bool,
    /// Why the hub's policy is not in force.
    pub problem: Option<String>,
    /// Observations kept for the hub.
    pub kept: u64,
    /// Observations that a coin left out: those kept stand for them.
    pub left_out: u64,
    /// Observations left out because the day's bytes were used up: nothing stands for them.
    pub uncovered: u64,
    /// Events left out with their observations.
    pub events_left_out: u64,
    /// Bytes kept on the device's present UTC day, before compression.
    pub day_bytes: u64,
    /// Records given up for want of room or time.
    pub dropped: Vec<DroppedView>,
}

/// Records of a stream that a device gave up.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DroppedView {
    /// Which stream.
    pub stream: String,
    /// `disk-budget`, `age` or `corrupt`.
    pub reason: String,
    /// How many.
    pub records: u64,
}

impl From<&Withheld> for WithheldView {
    fn from(withheld: &Withheld) -> Self {
        let Withheld { sampling, dropped, problem } = withheld;
        let dropped = dropped.iter().map(|it| DroppedView {
            stream: it.stream.to_string(),
            reason: it.reason.name().to_owned(),
            records: it.records,
        });
        Self {
            number: sampling.number,
            limited: sampling.limited,
            problem: problem.clone(),
            kept: sampling.kept,
            left_out: sampling.left_out,
            uncovered: sampling.uncovered,
            events_left_out: sampling.events_left_out,
            day_bytes: sampling.day_bytes,
            dropped: dropped.collect(),
        }
    }
}

/// A release that a device cannot run.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UnfitRelease {
    /// Model line.
    pub line: String,
    /// In which role.
    pub role: String,
    /// Which version.
    pub version: u32,
    /// What it needs and what there is, one sentence per lack.
    pub reasons: Vec<String>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    first_seen: i64,
    last_seen: i64,
    labels: String,
    group_name: Option<String>,
    report: Option<Vec<u8>>,
    report_at: Option<i64>,
}

impl Row {
    fn device(self, hub: &Hub, (flags, policies): &(Flags, Policies)) -> Result<Device, Problem> {
        let report = match self.report.as_deref().map(Report::decode) {
            None => None,
            Some(Ok(report)) => Some(report),
            Some(Err(error)) => {
                tracing::warn!(device = self.id, %error, "a stored report cannot be read");
                None
            }
        };
        let own = rollout::labels(&self.labels, report.as_ref().map(|report| report.base()))?;
        let unfit = report.iter().flat_map(|report| report.unfit()).map(|unfit| UnfitRelease {
            line: unfit.line.to_string(),
            role: unfit.role.to_string(),
            version: unfit.package.version.0,
            reasons: unfit.reasons.clone(),
        });
        let policy = policies.of(&own);
        Ok(Device {
            sampling_policy: policy.map(|policy| policy.name.to_string()),
            sampling_number: policy.map(|policy| policy.number),
            withheld: report.as_ref().and_then(|report| report.withheld()).map(WithheldView::from),
            nodes: report.iter().flat_map(|report| report.nodes()).map(SensorNode::from).collect(),
            flags: flags.of(&self.id, &own),
            metadata: report.as_ref().and_then(|report| report.metadata()).map(Metadata::from),
            unfit: unfit.collect(),
            connected: DeviceId::new(&self.id).is_ok_and(|id| hub.is_connected(&id)),
            labels: serde_json::from_str(&self.labels).unwrap_or_default(),
            id: self.id,
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            group: self.group_name,
            report_at: self.report_at,
            report: report.and_then(|report| serde_json::to_value(report.base()).ok()),
        })
    }
}

/// What a person decides about a device.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceSettings {
    /// Labels that selectors match; those of the device's own report are added.
    pub labels: BTreeMap<String, String>,
    /// Its group; none when left out.
    #[schema(value_type = Option<String>)]
    pub group: Option<GroupName>,
}

/// All devices, by id.
#[utoipa::path(get, path = "/devices", tag = "devices",
    security(("token" = ["viewer"])), params(PageQuery),
    responses((status = 200, body = Page<Device>), (status = "default", body = Problem)))]
async fn list(hub: State, Query(page): Query<PageQuery>) -> Result<Json<Page<Device>>, Problem> {
    let limit = page.limit()?;
    let query = "select id, first_seen, last_seen, labels, group_name, report, report_at from devices
                 where id > $1 and id <> $3 order by id limit $2";
    let rows: Vec<Row> = sqlx::query_as(query)
        .bind(page.after_text()?)
        .bind(i64::from(limit) + 1)
        .bind(HUB_DEVICE)
        .fetch_all(hub.catalog.reader())
        .await?;
    let told = told(&hub).await?;
    let devices: Result<Vec<Device>, Problem> = rows.into_iter().map(|row| row.device(&hub, &told)).collect();
    Ok(Json(Page::cut(devices?, limit, |device| device.id.clone())))
}

/// One device.
#[utoipa::path(get, path = "/devices/{device}", tag = "devices",
    security(("token" = ["viewer"])), params(("device" = String, Path)),
    responses((status = 200, body = Device), (status = "default", body = Problem)))]
async fn get(hub: State, Path(device): Path<DeviceId>) -> Result<Json<Device>, Problem> {
    find(&hub, &device).await.map(Json)
}

/// Sets labels and group of a device; one that has never connected is registered by this.
#[utoipa::path(put, path = "/devices/{device}", tag = "devices",
    security(("token" = ["operator"])), params(("device" = String, Path)),
    request_body = DeviceSettings, responses((status = 200, body = Device), (status = "default", body = Problem)))]
async fn put(
    hub: State,
    Path(device): Path<DeviceId>,
    Json(settings): Json<DeviceSettings>,
) -> Result<Json<Device>, Problem> {
    let mut catalog = hub.catalog.write().await?;
    devices::put(&mut catalog, &device, &settings.labels, settings.group.as_ref(), hub.now()).await?;
    catalog.commit().await?;
    // Other labels may bring other flags, and another sampling policy.
    refresh(&hub, hub.now()).await?;
    find(&hub, &device).await.map(Json)
}

async fn find(hub: &Hub, device: &DeviceId) -> Result<Device, Problem> {
    let query = "select id, first_seen, last_seen, labels, group_name, report, report_at from devices where id = $1";
    let row: Option<Row> = sqlx::query_as(query).bind(device.as_str()).fetch_optional(hub.catalog.reader()).await?;
    row.ok_or_else(|| Problem::not_found(format!("there is no device {device}")))?.device(hub, &told(hub).await?)
}

/// What all devices are told by their labels.
async fn told(hub: &Hub) -> Result<(Flags, Policies), Problem> {
    let mut catalog = hub.catalog.reader().acquire().await?;
    Ok((Flags::read(&mut catalog).await?, Policies::read(&mut catalog).await?))
}
