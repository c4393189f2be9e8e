//! A rollout as the web API shows it.

use std::sync::Arc;

use cloud_hub_core::rollout::{Policy, RolloutState};
use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;
use tributary_wire::{LineName, Micros, PackageRef, ReleaseRef, Role, UpdaterState};
use utoipa::ToSchema;

use super::super::Problem;
use crate::hub::Hub;
use crate::rollout::{Member, Stored, read};

/// A rollout in a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RolloutSummary {
    /// Its number.
    pub id: i64,
    /// Model line.
    pub line: String,
    /// Role of the package.
    pub role: String,
    /// Version that is rolled out.
    pub version: u32,
    /// Of how many entities in 10 000 a challenger answers.
    pub share: u16,
    /// Labels of the devices that it is for, such as `site=lyon`; empty: all.
    pub selector: String,
    /// `running`, `paused`, `stopping`, `stopped` or `completed`.
    pub state: String,
    /// Since when, UTC microseconds.
    pub since: i64,
    /// Wave under way, from 1; absent when none is.
    pub wave: Option<usize>,
    /// Why it is paused or was stopped.
    pub stop_reason: Option<String>,
    /// Why it was begun.
    pub reason: String,
    /// When it was begun, UTC microseconds.
    pub created: i64,
    /// When it last changed, UTC microseconds.
    pub changed: i64,
    /// Devices that were assigned the release.
    pub devices: usize,
}

impl RolloutSummary {
    pub(super) fn new(stored: &Stored) -> Self {
        let rollout = &stored.rollout;
        let (wave, since, stop_reason) = match &rollout.state {
            RolloutState::Running { wave, since } => (Some(wave + 1), since, None),
            RolloutState::Paused { wave, since, reason } => (Some(wave + 1), since, Some(reason.clone())),
            RolloutState::Stopping { since, reason } | RolloutState::Stopped { since, reason } => {
                (None, since, Some(reason.clone()))
            }
            RolloutState::Completed { since } => (None, since, None),
        };
        Self {
            id: rollout.id,
            line: rollout.line.to_string(),
            role: rollout.role.to_string(),
            version: rollout.target.version.0,
            share: rollout.share,
            selector: rollout.selector.to_string(),
            state: rollout.state.name().to_owned(),
            since: since.0,
            wave,
            stop_reason,
            reason: stored.reason.clone(),
            created: rollout.created.0,
            changed: stored.changed.0,
            devices: rollout.taken.len(),
        }
    }
}

/// A rollout with everything that is known of it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RolloutView {
    /// As in a list.
    #[serde(flatten)]
    pub summary: RolloutSummary,
    /// The rules.
    #[schema(value_type = Object)]
    pub policy: Policy,
    /// Share of the fleet after each wave, in percent.
    pub waves: Vec<u8>,
    /// What it waits for now.
    pub waiting: Vec<String>,
    /// Devices that cannot run the release: they are not waited for, and no failure of it.
    pub unfit: usize,
    /// What devices did since the wave began.
    pub evidence: EvidenceView,
    /// One per device that was assigned the release.
    pub members: Vec<RolloutDevice>,
    /// What it did and why, oldest first.
    pub steps: Vec<StepView>,
}

/// What devices did since the wave began.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub struct EvidenceView {
    /// Predictions with the release.
    pub predictions: u64,
    /// Of those, how many failed.
    pub errors: u64,
    /// Predictions without it.
    pub control_predictions: u64,
    /// Of those, how many failed.
    pub control_errors: u64,
}

/// A device that was assigned the release.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RolloutDevice {
    /// Which device.
    pub device: String,
    /// In which wave, from 1.
    pub wave: usize,
    /// When it was assigned, UTC microseconds.
    pub assigned: i64,
    /// Version that it had before.
    pub before: Option<u32>,
    /// When it was assigned back, UTC microseconds.
    pub rolled_back: Option<i64>,
    /// `assigned`, `fetching`, `staged`, `trial`, `committed`, `undone`, `unfit`, `going-back` or `back`.
    pub state: String,
    /// Version that it reports as committed.
    pub committed: Option<u32>,
    /// Why it undid the release, what it lacks to run it, or what its updater complains of.
    pub detail: Option<String>,
    /// When it last said anything, UTC microseconds.
    pub last_seen: Option<i64>,
}

/// One thing a rollout did.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// When, UTC microseconds.
    pub time: i64,
    /// State after it.
    pub state: String,
    /// In words.
    pub message: String,
}

/// A rollout with everything that is known of it, as of now.
pub(super) async fn view(hub: &Arc<Hub>, id: i64) -> Result<RolloutView, Problem> {
    let mut catalog = hub.catalog.reader().acquire().await?;
    let catalog: &mut SqliteConnection = &mut catalog;
    let stored = read::get(catalog, id).await?;
    let (plan, fleet, evidence) = read::outlook(catalog, &hub.config.patches, &stored, hub.now()).await?;
    let steps = read::steps(catalog, id).await?;
    let rollout = &stored.rollout;
    let members = rollout.taken.iter().map(|(device, taken)| {
        let member = fleet.iter().find(|member| member.device == *device);
        let line = member.and_then(|member| member.line(&rollout.line, &rollout.role));
        let undone = line.and_then(|line| line.undone.as_ref()).filter(|(it, _)| it.sha256 == rollout.target.sha256);
        let lack = member.and_then(|member| lacks(member, stored_role(&stored)));
        RolloutDevice {
            device: device.to_string(),
            wave: taken.wave + 1,
            assigned: taken.at.0,
            before: taken.before.as_ref().map(|before| before.version.0),
            rolled_back: taken.rolled_back.map(|at| at.0),
            state: device_state(member, stored_role(&stored), taken.rolled_back).to_owned(),
            committed: line.and_then(|line| line.committed).map(|package| package.version.0),
            detail: lack
                .or_else(|| undone.map(|(_, why)| why.clone()))
                .or_else(|| line.and_then(|line| line.error.clone())),
            last_seen: member.map(|member| member.last_seen.0),
        }
    });
    let members: Vec<RolloutDevice> = members.collect();
    // What a plan would change is about to happen; what it only says is what is waited for.
    let waiting = if plan.next == rollout.state && plan.assign.is_empty() { plan.reasons } else { Vec::new() };
    Ok(RolloutView {
        summary: RolloutSummary::new(&stored),
        policy: rollout.policy.clone(),
        waves: rollout.policy.waves().to_vec(),
        waiting,
        unfit: members.iter().filter(|member| member.state == "unfit").count(),
        evidence: EvidenceView {
            predictions: evidence.canary.trials,
            errors: evidence.canary.failures,
            control_predictions: evidence.control.trials,
            control_errors: evidence.control.failures,
        },
        members,
        steps: steps
            .into_iter()
            .map(|step| StepView { time: step.time, state: step.state, message: step.message })
            .collect(),
    })
}

type Wanted<'a> = (&'a LineName, &'a Role, &'a ReleaseRef);

fn stored_role(stored: &Stored) -> Wanted<'_> {
    (&stored.rollout.line, &stored.rollout.role, &stored.rollout.target)
}

/// What a device lacks to run the release.
fn lacks(member: &Member, (line, role, target): Wanted<'_>) -> Option<String> {
    member.unfit(line, role).filter(|(package, _)| package.sha256 == target.sha256).map(|(_, lack)| lack)
}

/// Where a device stands between its assignment and the end, in one word.
fn device_state(member: Option<&Member>, wanted: Wanted<'_>, back: Option<Micros>) -> &'static str {
    let (line, role, target) = wanted;
    let report = member.and_then(|member| member.line(line, role));
    let is_target = |package: &PackageRef| package.sha256 == target.sha256;
    let runs = report.is_some_and(|report| report.committed.as_ref().is_some_and(is_target));
    let tries = report.is_some_and(|report| report.candidate.as_ref().is_some_and(is_target));
    if back.is_some() {
        return if runs || tries { "going-back" } else { "back" };
    }
    if member.and_then(|member| lacks(member, wanted)).is_some() {
        return "unfit";
    }
    if report.is_some_and(|report| report.undone.as_ref().is_some_and(|(package, _)| is_target(package))) {
        return "undone";
    }
    match report.map(|report| report.state) {
        _ if runs => "committed",
        Some(UpdaterState::Fetching) if tries => "fetching",
        Some(UpdaterState::Staged) if tries => "staged",
        Some(UpdaterState::Trial) if tries => "trial",
        _ => "assigned",
    }
}
