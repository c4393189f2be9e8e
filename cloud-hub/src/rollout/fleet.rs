//! What the catalog knows of the devices, turned into what the planner asks for.

use std::collections::BTreeMap;

use cloud_hub_core::rollout::{DeviceStatus, Evidence, Rollout};
use sqlx::SqliteConnection;
use tributary_stats::sequential::Arm;
use tributary_wire::{
    DeviceId, Generation, LineName, LineReport, Micros, PackageRef, ReleaseRef, Report, ReportV1, Role, Unfit,
    UpdaterState,
};

use super::store::{self, Counters, release};
use super::{RolloutError, assignments};
use crate::ingest::HUB_DEVICE;

/// A device and what it last said.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Which device.
    pub device: DeviceId,
    /// When it last said anything.
    pub last_seen: Micros,
    /// Its labels: those given at the hub win over those of its own report.
    pub labels: BTreeMap<String, String>,
    /// Its last report; one that cannot be read counts as none.
    pub report: Option<ReportV1>,
    /// Releases that it says it cannot run.
    pub unfit: Vec<Unfit>,
}

impl Member {
    /// The release of a line and role that it says it cannot run, and what it lacks, in words.
    pub fn unfit(&self, line: &LineName, role: &Role) -> Option<(PackageRef, String)> {
        let unfit = self.unfit.iter().find(|unfit| (&unfit.line, &unfit.role) == (line, role))?;
        Some((unfit.package, unfit.reasons.join("; ")))
    }

    /// What it reports of a line and role.
    pub fn line(&self, line: &LineName, role: &Role) -> Option<&LineReport> {
        self.report.as_ref()?.lines.iter().find(|report| report.line == *line && report.role == *role)
    }
}

/// Every device of the fleet.
pub async fn members(catalog: &mut SqliteConnection) -> Result<Vec<Member>, RolloutError> {
    // The hub itself is a sender of labels, not a device that runs anything.
    let query = "select id, labels, last_seen, report_at, report from devices where id <> $1 order by id";
    let rows: Vec<Row> = sqlx::query_as(query).bind(HUB_DEVICE).fetch_all(catalog).await?;
    rows.into_iter().map(Member::try_from).collect()
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    labels: String,
    last_seen: i64,
    report_at: Option<i64>,
    report: Option<Vec<u8>>,
}

impl TryFrom<Row> for Member {
    type Error = RolloutError;
    fn try_from(row: Row) -> Result<Self, RolloutError> {
        let report = row.report.and_then(|bytes| Report::decode(&bytes).ok());
        let (unfit, base) = report.map_or((Vec::new(), None), |it| (it.unfit().to_vec(), Some(it.base().clone())));
        let last_seen = Micros(row.last_seen.max(row.report_at.unwrap_or(i64::MIN)));
        let labels = labels(&row.labels, base.as_ref())?;
        Ok(Self { device: DeviceId::new(&row.id)?, last_seen, labels, report: base, unfit })
    }
}

/// What selectors match: the labels given at the hub, and those of the device's own report that they leave open.
pub fn labels(given: &str, report: Option<&ReportV1>) -> Result<BTreeMap<String, String>, RolloutError> {
    let mut labels: BTreeMap<String, String> = report.into_iter().flat_map(|it| it.labels.clone()).collect();
    labels.extend(store::from_json::<BTreeMap<String, String>>("labels of a device", given)?);
    Ok(labels)
}

/// The members as the planner sees them, for one rollout: those that it is for, and those that it was for when it came
/// to them.
pub async fn statuses(
    catalog: &mut SqliteConnection,
    members: &[Member],
    rollout: &Rollout,
) -> Result<Vec<DeviceStatus>, RolloutError> {
    let Rollout { line, role, .. } = rollout;
    let wishes = assignments::wishes(catalog, line, role).await?;
    let generations = assignments::generations(catalog).await?;
    let mut statuses = Vec::with_capacity(members.len());
    let meant =
        |member: &&Member| rollout.selector.matches(&member.labels) || rollout.taken.contains_key(&member.device);
    for member in members.iter().filter(meant) {
        let report = member.line(line, role);
        let signed = generations.get(&member.device).copied().unwrap_or(Generation(0));
        let committed = report.and_then(|report| report.committed);
        let assigned = match (wishes.get(&member.device), committed) {
            (Some(wish), _) => Some(wish.clone()),
            // A package that came another way is known if it is one of the line's versions.
            (None, Some(package)) => known_release(catalog, line, &package).await?,
            (None, None) => None,
        };
        statuses.push(DeviceStatus {
            device: member.device.clone(),
            last_seen: Some(member.last_seen),
            up_to_date: member.report.as_ref().is_some_and(|report| report.generation >= signed),
            assigned,
            committed,
            candidate: report.and_then(|report| report.candidate),
            state: report.map_or(UpdaterState::Idle, |report| report.state),
            undone: report.and_then(|report| report.undone.clone()),
            unfit: member.unfit(line, role),
        });
    }
    Ok(statuses)
}

async fn known_release(
    catalog: &mut SqliteConnection,
    line: &LineName,
    package: &PackageRef,
) -> Result<Option<ReleaseRef>, RolloutError> {
    let query = "select version, length, sha256 from releases where line = $1 and version = $2 and sha256 = $3";
    let row: Option<(i64, i64, String)> = sqlx::query_as(query)
        .bind(line.as_str())
        .bind(i64::from(package.version.0))
        .bind(package.sha256.to_string())
        .fetch_optional(catalog)
        .await?;
    row.map(|(version, length, sha256)| release(version, length, &sha256)).transpose()
}

/// The package that serves, by a line's report, and what it did since it began to.
fn counters(report: &LineReport) -> Option<Counters> {
    let serving = match report.state {
        UpdaterState::Trial => report.candidate,
        _ => report.committed,
    }?;
    // Errors above predictions would only be a device's mistake; they must not become one of ours.
    let predictions = report.trial.predictions;
    Some(Counters { sha256: serving.sha256, predictions, errors: report.trial.errors.min(predictions) })
}

/// Counters of all members now: the baseline of a wave that begins.
pub fn baseline(members: &[Member], line: &LineName, role: &Role) -> BTreeMap<DeviceId, Counters> {
    let counted = |member: &Member| Some((member.device.clone(), counters(member.line(line, role)?)?));
    members.iter().filter_map(counted).collect()
}

/// What the devices did since the baseline, with and without the release.
pub fn evidence(
    members: &[Member],
    (line, role, target): (&LineName, &Role, &ReleaseRef),
    baseline: &BTreeMap<DeviceId, Counters>,
) -> Evidence {
    let mut evidence = Evidence::default();
    for member in members {
        let Some(now) = member.line(line, role).and_then(counters) else { continue };
        // A package that began to serve after the baseline, or counts anew, counts whole.
        let before = baseline.get(&member.device).filter(|before| {
            before.sha256 == now.sha256 && before.predictions <= now.predictions && before.errors <= now.errors
        });
        let (predictions, errors) = before.map_or((0, 0), |before| (before.predictions, before.errors));
        let trials = now.predictions - predictions;
        let failures = (now.errors - errors).min(trials);
        let arm: &mut Arm = if now.sha256 == target.sha256 { &mut evidence.canary } else { &mut evidence.control };
        arm.trials += trials;
        arm.failures += failures;
    }
    evidence
}
