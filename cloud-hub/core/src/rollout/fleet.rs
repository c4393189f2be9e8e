//! What is known of the devices, turned into what the planner asks for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tributary_stats::sequential::Arm;
use tributary_wire::{
    DeviceId, Generation, LineName, LineReport, Micros, PackageRef, ReleaseRef, Report, ReportV1, Role, Sha256, Unfit,
    UpdaterState,
};

use super::{DeviceStatus, Evidence, Plan, Restored, Rollout, RolloutState, patches, plan};

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

/// What a package had done on a device at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// The package.
    pub sha256: Sha256,
    /// Predictions since it began to serve.
    pub predictions: u64,
    /// Of those, how many failed.
    pub errors: u64,
}

/// What the hub has stored about a line and role, beside rollouts and reports.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// What every device is wished to run.
    pub wishes: &'a BTreeMap<DeviceId, ReleaseRef>,
    /// The newest generation signed for every device.
    pub generations: &'a BTreeMap<DeviceId, Generation>,
    /// The releases of the line.
    pub releases: &'a [ReleaseRef],
    /// Set on a hub that was restored from a backup.
    pub restored: Option<&'a Restored>,
    /// How many patches to the rollout's release are still to be made.
    pub patches: usize,
}

impl Member {
    /// From what is stored: labels given at the hub, when it was seen, its last report.
    pub fn new(device: DeviceId, given: BTreeMap<String, String>, last_seen: Micros, report: Option<&Report>) -> Self {
        let base = report.map(Report::base);
        let labels = labels(given, base);
        let unfit = report.map_or(Vec::new(), |report| report.unfit().to_vec());
        Self { device, last_seen, labels, report: base.cloned(), unfit }
    }

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

/// What selectors match: the labels given at the hub, and those of the device's own report that they leave open.
pub fn labels(given: BTreeMap<String, String>, report: Option<&ReportV1>) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> = report.into_iter().flat_map(|it| it.labels.clone()).collect();
    labels.extend(given);
    labels
}

/// The members as the planner sees them, for one rollout: those that it is for, and those that it was for when it came
/// to them.
pub fn statuses(members: &[Member], rollout: &Rollout, known: Known<'_>) -> Vec<DeviceStatus> {
    let meant =
        |member: &&Member| rollout.selector.matches(&member.labels) || rollout.taken.contains_key(&member.device);
    let concerned = |member: &&Member| known.restored.is_none_or(|restored| restored.concerns(rollout, member));
    members.iter().filter(meant).filter(concerned).map(|member| status(member, rollout, known)).collect()
}

/// The release that a package is, of those of its line: versions may be doubled by a hub that was restored, so the hash
/// has to be the same too.
pub(super) fn release_of<'a>(releases: &'a [ReleaseRef], package: &PackageRef) -> Option<&'a ReleaseRef> {
    releases.iter().find(|release| (release.version, release.sha256) == (package.version, package.sha256))
}

fn status(member: &Member, rollout: &Rollout, known: Known<'_>) -> DeviceStatus {
    let Rollout { line, role, .. } = rollout;
    let report = member.line(line, role);
    let signed = known.generations.get(&member.device).copied().unwrap_or(Generation(0));
    let committed = report.and_then(|report| report.committed);
    let undone = report.and_then(|report| report.undone.clone());
    let unfit = member.unfit(line, role);
    // What a device cannot run, or gave up, is no way back: it would stay on the release that is to go.
    let refused = [&undone, &unfit].map(|of| of.as_ref().map(|(package, _)| package.sha256));
    let told = known.wishes.get(&member.device).filter(|wish| !refused.contains(&Some(wish.sha256)));
    // A package that came another way is known if it is one of the line's versions.
    let found = || release_of(known.releases, &committed?).cloned();
    DeviceStatus {
        device: member.device.clone(),
        last_seen: Some(member.last_seen),
        up_to_date: member.report.as_ref().is_some_and(|report| report.generation >= signed),
        had: told.cloned().or_else(found),
        committed,
        previous: report.and_then(|report| release_of(known.releases, &report.previous?)).cloned(),
        candidate: report.and_then(|report| report.candidate),
        state: report.map_or(UpdaterState::Idle, |report| report.state),
        undone,
        unfit,
    }
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
pub fn evidence(members: &[Member], rollout: &Rollout, baseline: &BTreeMap<DeviceId, Counters>) -> Evidence {
    let Rollout { line, role, target, .. } = rollout;
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

/// What one look at a rollout changed: to be stored, then signed, then sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What was decided.
    pub plan: Plan,
    /// The planner stopped the rollout in this step.
    pub stopped: bool,
}

/// What the planner would do now, and on which evidence; changes nothing.
pub fn outlook(
    rollout: &Rollout,
    since: &BTreeMap<DeviceId, Counters>,
    members: &[Member],
    known: Known<'_>,
    now: Micros,
) -> (Plan, Evidence) {
    let evidence = evidence(members, rollout, since);
    let mut plan = plan(rollout, &statuses(members, rollout, known), &evidence, now);
    if let Some(restored) = known.restored {
        restored.hold_back(rollout, members, &mut plan);
    }
    patches::hold_back(known.patches, rollout, &mut plan, now);
    (plan, evidence)
}

/// Asks the planner and takes its plan over, with a new baseline where a wave begins. `None`: nothing changes.
pub fn advance(
    rollout: &mut Rollout,
    since: &mut BTreeMap<DeviceId, Counters>,
    members: &[Member],
    known: Known<'_>,
    now: Micros,
) -> Option<Step> {
    let (plan, _) = outlook(rollout, since, members, known, now);
    if plan.next == rollout.state && plan.assign.is_empty() {
        return None;
    }
    if wave(&plan.next) != wave(&rollout.state) {
        *since = baseline(members, &rollout.line, &rollout.role);
    }
    let stopped = rollout.state.is_active() && plan.next.is_stopped();
    rollout.apply(&plan, now);
    Some(Step { plan, stopped })
}

/// The wave of a state, as far as evidence is counted by it.
fn wave(state: &RolloutState) -> Option<usize> {
    match state {
        RolloutState::Running { wave, .. } | RolloutState::Paused { wave, .. } => Some(*wave),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
