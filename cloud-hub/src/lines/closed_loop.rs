//! The closed loop of a line: drift starts a run, a run that wins is promoted, published and rolled out.
//!
//! Decisions are the core's; this is the shell that reads what they need, carries them out and tells the story.

use std::sync::Arc;

use cloud_hub_core::registry::{Comparison, Promotion, promote};
use cloud_hub_trainer::RunResult;
use serde_json::{Value, json};
use sqlx::SqliteConnection;
use tributary_stats::ranking::Difference;
use tributary_wire::{LineName, Micros, Role, VersionNumber};

use super::gate::{Gate, Situation, gate};
use super::{Line, story};
use crate::audit::{self, Change};
use crate::hub::Hub;
use crate::publish;
use crate::registry::aliases;
use crate::rollout::{self, RolloutError};
use crate::training::datasets;
use crate::training::runs::{self, NewRun, Run, RunOrigin};

async fn situation(catalog: &mut SqliteConnection, line: &Line) -> anyhow::Result<Situation> {
    let newest = rollout::read::newest(catalog, &line.name, &Role::primary()).await?;
    Ok(Situation {
        unfinished: runs::unfinished(catalog, &line.name).await?.map(|run| run.id),
        rollout: newest.filter(|stored| stored.rollout.state.is_active()).map(|stored| stored.rollout.id),
        last_end: runs::last_drift_end(catalog, &line.name).await?,
        last_rows: datasets::last_drift_rows(catalog, &line.name).await?,
        rows: datasets::labelled_until(catalog, line).await?,
    })
}

/// Called when drift is found, again and again as long as it stands: queues a run over the recent past, unless the gate
/// is closed. `now` is wall time: the pause between runs protects the machine, not the data.
pub async fn retrain(hub: &Arc<Hub>, line: &LineName, reason: &str, now: Micros) -> anyhow::Result<Option<i64>> {
    const NOT_STARTED: &str = "training-not-started";
    const QUEUED: &str = "run-queued";
    let mut catalog = hub.catalog.write().await?;
    let line = super::get(&mut catalog, line).await?;
    let situation = situation(&mut catalog, &line).await?;
    let run = match gate(&line, situation, now) {
        Gate::Closed(why) => {
            // Once until the next run: the story is for people.
            let told = story::last_of(&mut catalog, &line.name, [NOT_STARTED, QUEUED]).await?;
            if told.as_deref() != Some(NOT_STARTED) {
                let message = format!("no training yet for \"{reason}\": {why}");
                story::tell(&mut catalog, &line.name, NOT_STARTED, &message, json!({}), now).await?;
                let to = json!({"reason": reason, "waits_for": why.to_string()});
                let change = Change { action: "retrain.wait", subject: line.name.as_str(), from: Value::Null, to };
                audit::record(&mut catalog, change, now).await?;
            }
            None
        }
        Gate::Open => {
            let new = NewRun {
                line: line.name.clone(),
                origin: RunOrigin::Drift,
                reason: reason.to_owned(),
                dataset: None,
                from: None,
                to: None,
                seed: line.settings.training.seed,
            };
            let run = runs::queue(&mut catalog, new, now).await?;
            let message = format!("run {} was queued: {reason}", run.id);
            story::tell(&mut catalog, &line.name, QUEUED, &message, json!({"run": run.id}), now).await?;
            Some(run.id)
        }
    };
    catalog.commit().await?;
    if run.is_some() {
        hub.training.ring();
    }
    Ok(run)
}

/// Whether what follows from a run is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    /// It is, or a person has to go on.
    Done,
    /// Another rollout of the line is under way, or a person has to sign the release; to be tried again.
    Waits,
}

/// What follows from a run that succeeded. A failure here must not stop the worker: it is told, and a person goes on.
pub async fn decide(hub: &Arc<Hub>, run: &Run) -> anyhow::Result<Decided> {
    let line = run.line()?;
    let outcome = follow(hub, &line, run).await;
    if matches!(outcome, Ok(Decided::Waits)) {
        return Ok(Decided::Waits);
    }
    let now = hub.now();
    let mut catalog = hub.catalog.write().await?;
    let mut failed = None;
    if let Err(error) = outcome {
        let message = format!("what follows from run {} could not be carried out: {error:#}", run.id);
        tracing::error!(line = %line, run = run.id, error = format!("{error:#}"), "closed loop");
        story::tell(&mut catalog, &line, "loop-failed", &message, json!({"run": run.id}), now).await?;
        failed = Some(message);
    }
    runs::decided(&mut catalog, run.id, failed.as_deref(), now).await?;
    catalog.commit().await?;
    Ok(Decided::Done)
}

async fn follow(hub: &Arc<Hub>, name: &LineName, run: &Run) -> anyhow::Result<Decided> {
    let now = hub.now();
    let mut catalog = hub.catalog.write().await?;
    let line = super::get(&mut catalog, name).await?;
    let result: RunResult = serde_json::from_str(run.result_json.as_deref().unwrap_or("null"))?;
    let version = result.version;
    let champion = aliases::current(&mut catalog, name, aliases::CHAMPION).await?;
    let reason = match champion {
        // An earlier attempt got this far before the hub stopped, or waits for a rollout to end.
        Some(change) if change.version == i64::from(version.0) => change.reason,
        champion => {
            let champion = champion.map(|change| VersionNumber(change.version as u32));
            let detail = json!({"run": run.id, "version": version, "champion": champion});
            let (kind, message) =
                match promote(&line.settings.promotion, champion, measured(&result, champion).as_ref()) {
                    Promotion::Keep(reason) => {
                        ("champion-kept", format!("version {version} stays a candidate: {reason}"))
                    }
                    Promotion::Promote(reason) if line.settings.auto_rollout => {
                        put_forward(&mut catalog, hub, name, version, &reason, now).await?;
                        ("", reason)
                    }
                    Promotion::Promote(reason) => (
                        "waits-for-a-person",
                        format!(
                            "version {version} could be champion ({reason}); `auto_rollout` is off, a person decides"
                        ),
                    ),
                };
            if !kind.is_empty() {
                story::tell(&mut catalog, name, kind, &message, detail.clone(), now).await?;
                let action = if kind == "champion-kept" { "promotion.refuse" } else { "promotion.wait" };
                let subject = format!("{name}/{version}");
                let (from, to) = (detail, json!({"reason": message}));
                audit::record(&mut catalog, Change { action, subject: &subject, from, to }, now).await?;
                catalog.commit().await?;
                return Ok(Decided::Done);
            }
            message
        }
    };
    let release = publish::find(&mut catalog, name, version).await?;
    catalog.commit().await?;
    if release.is_some_and(|release| release.is_waiting()) {
        // The line is attended: the rollout begins when a person has signed.
        return Ok(Decided::Waits);
    }
    let reason = format!("version {version} is the new champion: {reason}");
    let order = rollout::Order::primary(name, version, Some(line.settings.rollout), &reason);
    match rollout::start(hub, order, now).await {
        Ok(_) => Ok(Decided::Done),
        Err(RolloutError::UnderWay { rollout, .. }) => {
            let mut catalog = hub.catalog.reader().acquire().await?;
            let under_way = rollout::read::get(&mut catalog, rollout).await?.rollout;
            // The one that an earlier attempt started before the hub stopped is the one that is wanted.
            Ok(if under_way.target.version == version { Decided::Done } else { Decided::Waits })
        }
        Err(error) => Err(error.into()),
    }
}

/// Champion and release in one transaction: there is never a champion that nobody can fetch or sign.
async fn put_forward(
    catalog: &mut SqliteConnection,
    hub: &Hub,
    line: &LineName,
    version: VersionNumber,
    reason: &str,
    now: Micros,
) -> anyhow::Result<()> {
    aliases::set(catalog, line, aliases::CHAMPION, version, reason, None, now).await?;
    let message = format!("version {version} is champion: {reason}");
    story::tell(catalog, line, "promoted", &message, json!({"version": version}), now).await?;
    publish::publish(hub, catalog, line, version, now).await?;
    Ok(())
}

/// Called when a rollout was aborted and its devices went back: the alias follows, so that the next challenger is
/// measured against what really serves.
pub async fn rollout_aborted(
    hub: &Arc<Hub>,
    line: &LineName,
    version: VersionNumber,
    reason: &str,
    now: Micros,
) -> anyhow::Result<()> {
    let mut catalog = hub.catalog.write().await?;
    if aliases::version(&mut catalog, line, aliases::CHAMPION).await? == Some(version) {
        let history = aliases::history(&mut catalog, line, aliases::CHAMPION, i64::MAX, 1000).await?;
        let earlier = history.iter().map(|change| VersionNumber(change.version as u32)).find(|other| *other != version);
        if let Some(earlier) = earlier {
            let reason = format!("the rollout of version {version} was aborted: {reason}");
            aliases::set(&mut catalog, line, aliases::CHAMPION, earlier, &reason, None, now).await?;
            let message = format!("version {earlier} is champion again: {reason}");
            story::tell(&mut catalog, line, "champion-restored", &message, json!({"version": earlier}), now).await?;
        }
    }
    catalog.commit().await?;
    Ok(())
}

/// The run's comparison in the core's form; `None` when it was made against another version than today's champion.
fn measured(result: &RunResult, champion: Option<VersionNumber>) -> Option<Comparison> {
    let found = result.comparison.as_ref().filter(|found| Some(found.champion) == champion)?;
    let (challenger, before) = (result.served(), &found.champion_scores);
    Some(Comparison {
        rows: before.rows as u64,
        positives: before.positives as u64,
        auc: Difference {
            champion: before.auc_roc,
            challenger: challenger.auc_roc,
            difference: found.auc_roc_gain,
            lower: found.auc_roc_gain_interval.0,
            upper: found.auc_roc_gain_interval.1,
        },
        average_precision: Difference {
            champion: before.average_precision,
            challenger: challenger.average_precision,
            difference: found.average_precision_gain,
            lower: found.average_precision_gain_interval.0,
            upper: found.average_precision_gain_interval.1,
        },
    })
}
