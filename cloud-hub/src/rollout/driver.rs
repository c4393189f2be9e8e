//! The shell around the engine: events and timer in, transactions, messages out.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cloud_hub_core::rollout::{Rollout, RolloutState};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tributary_process::config::HumanDuration;
use tributary_process::shutdown::Shutdown;
use tributary_wire::topic::Channel;
use tributary_wire::{DeviceId, Generation, Micros, Role};

use super::assignments::Outgoing;
use super::engine::{self, Changed, Command};
use super::roles::{self, Order};
use super::{RolloutError, assignments, flags, fleet, store};
use crate::backup;
use crate::catalog::alerts;
use crate::hub::{Hub, HubEvent};
use crate::lines::{closed_loop, story};

/// The alert of a rollout that stopped by itself; subject: line and role.
const STOPPED: &str = "rollout-stopped";
/// Devices whose assignments are signed in one transaction when the whole fleet is gone through.
const AT_ONCE: usize = 32;

/// How often rollouts are looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Soonest after a device's report, so that many reports at once cost one look.
    pub after_report: HumanDuration,
    /// Without any report: waves also pass, and time out, by time alone.
    pub interval: HumanDuration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            after_report: HumanDuration(Duration::from_millis(200)),
            interval: HumanDuration(Duration::from_secs(2)),
        }
    }
}

/// Begins a rollout and assigns its first wave.
pub async fn start(hub: &Arc<Hub>, order: Order, now: Micros) -> Result<i64, RolloutError> {
    let mut catalog = hub.catalog.write().await.map_err(RolloutError::from)?;
    let Order { line, role, version, reason, .. } = &order;
    let policy = match &order.policy {
        Some(policy) => policy.clone(),
        None => crate::lines::get(&mut catalog, line).await?.settings.rollout,
    };
    let begun = engine::begin(&mut catalog, &order, policy, now).await?;
    let id = begun.rollout.id;
    let message = format!("rollout {id} of {} begins: {reason}", what(&begun.rollout));
    let detail = json!({"rollout": id, "version": version, "role": role});
    story::tell(&mut catalog, line, "rollout-running", &message, detail, now).await?;
    alerts::resolve(&mut catalog, STOPPED, &format!("{line}/{role}"), now).await?;
    let changed = step(&mut catalog, hub, id, now).await?;
    catalog.commit().await?;
    act(hub, changed, now).await;
    hub.bus.publish(HubEvent::RolloutBegan);
    Ok(id)
}

/// Version and role, as a story tells them.
fn what(rollout: &Rollout) -> String {
    let Rollout { role, target, .. } = rollout;
    match *role == Role::primary() {
        true => format!("version {}", target.version),
        false => format!("version {} as {role}", target.version),
    }
}

/// Gives a challenger another share, and sends every device that has it an assignment that says so.
pub async fn share(hub: &Arc<Hub>, id: i64, share: u16, reason: &str) -> Result<(), RolloutError> {
    let now = hub.now();
    let mut catalog = hub.catalog.write().await.map_err(RolloutError::from)?;
    let stored = roles::change_share(&mut catalog, id, share, reason, now).await?;
    let message = format!("{} gets a share of {share} in 10000: {reason}", what(&stored.rollout));
    let detail = json!({"rollout": id, "share": share});
    story::tell(&mut catalog, &stored.rollout.line, "rollout-share", &message, detail, now).await?;
    catalog.commit().await?;
    refresh(hub, now).await
}

/// Sets or clears a flag, and sends every device that it concerns an assignment that says so. Devices without an
/// assignment get it with their first.
pub async fn flag(
    hub: &Arc<Hub>,
    target: &flags::Target,
    key: &str,
    value: Option<&str>,
) -> Result<bool, RolloutError> {
    let now = hub.now();
    let mut catalog = hub.catalog.write().await.map_err(RolloutError::from)?;
    let changed = flags::set(&mut catalog, target, key, value, now).await?;
    catalog.commit().await?;
    refresh(hub, now).await?;
    Ok(changed)
}

/// Carries out an operator's command and what follows from it at once.
pub async fn command(hub: &Arc<Hub>, id: i64, command: Command, reason: &str) -> Result<(), RolloutError> {
    let now = hub.now();
    let mut catalog = hub.catalog.write().await.map_err(RolloutError::from)?;
    let stored = engine::carry_out(&mut catalog, id, command, reason, now).await?;
    let (rollout, state) = (&stored.rollout, stored.rollout.state.name());
    let message = format!("rollout {id} of {} is {state}: {reason}", what(rollout));
    let detail = json!({"rollout": id, "version": rollout.target.version});
    story::tell(&mut catalog, &rollout.line, &format!("rollout-{state}"), &message, detail, now).await?;
    let changed = step(&mut catalog, hub, id, now).await?;
    catalog.commit().await?;
    let stopped = (command == Command::Abort).then(|| stored.rollout.clone());
    act(hub, changed, now).await;
    if let Some(rollout) = stopped {
        restore_alias(hub, &rollout, reason, now).await;
    }
    if command == Command::Resume {
        // While paused nobody was answered; devices need not wait for their next report.
        refresh(hub, now).await?;
    }
    Ok(())
}

/// Drives all rollouts until the signal.
pub async fn run(hub: Arc<Hub>, shutdown: Shutdown) -> anyhow::Result<()> {
    let mut events = hub.bus.subscribe();
    let (soon, later) = (hub.config.rollout.after_report.0, hub.config.rollout.interval.0);
    let mut due = tokio::time::Instant::now();
    loop {
        let event = tokio::select! {
            () = shutdown.given() => return Ok(()),
            () = tokio::time::sleep_until(due) => None,
            event = events.recv() => Some(event),
        };
        match event {
            None => {
                if let Err(error) = drive(&hub, hub.now()).await {
                    tracing::error!(error = format!("{error:#}"), "rollouts could not be driven; trying again");
                }
                due = tokio::time::Instant::now() + later;
            }
            Some(Ok(HubEvent::Report { device, report })) => {
                if let Err(error) = backup::heard(&hub, &device, hub.now()).await {
                    tracing::error!(device = %device, error = format!("{error:#}"), "a restored hub could not learn from a report");
                }
                if let Err(error) = answer(&hub, &device, (report.generation, report.asks)).await {
                    tracing::error!(device = %device, error = format!("{error:#}"), "a report could not be answered");
                }
                due = due.min(tokio::time::Instant::now() + soon);
            }
            Some(Ok(HubEvent::TakenBack)) => {
                if let Err(error) = refresh(&hub, hub.now()).await {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "devices hear of what was taken back when they report"
                    );
                }
            }
            Some(Ok(HubEvent::Patched)) => due = due.min(tokio::time::Instant::now() + soon),
            Some(Ok(_)) => {}
            // Reports that were missed are in the catalog; devices repeat what they need to know.
            Some(Err(RecvError::Lagged(_))) => due = due.min(tokio::time::Instant::now() + soon),
            Some(Err(RecvError::Closed)) => return Ok(()),
        }
    }
}

/// One look at every rollout that may have something to do.
async fn drive(hub: &Arc<Hub>, now: Micros) -> anyhow::Result<()> {
    if backup::waits(hub, now).await? {
        return Ok(());
    }
    let open = store::to_drive(&mut *hub.catalog.reader().acquire().await?).await?;
    for id in open {
        // Planned outside a write first: most looks change nothing and should not wait for the writer.
        let mut reader = hub.catalog.reader().acquire().await?;
        let stored = store::get(&mut reader, id).await?;
        let (plan, ..) = engine::outlook(&mut reader, &hub.config.patches, &stored, now).await?;
        drop(reader);
        if plan.next == stored.rollout.state && plan.assign.is_empty() {
            continue;
        }
        let mut catalog = hub.catalog.write().await?;
        let changed = step(&mut catalog, hub, id, now).await.with_context(|| format!("rollout {id}"))?;
        catalog.commit().await?;
        act(hub, changed, now).await;
    }
    Ok(())
}

/// The engine's step, told in the line's story within the same transaction.
async fn step(catalog: &mut sqlx::SqliteConnection, hub: &Hub, id: i64, now: Micros) -> Result<Changed, RolloutError> {
    let changed = engine::advance(catalog, (&hub.keys.assignment(), &hub.config.patches), id, now).await?;
    if let Some(rollout) = &changed.rollout {
        if let (true, RolloutState::Stopping { reason, .. }) = (changed.stopped, &rollout.state) {
            let subject = format!("{}/{}", rollout.line, rollout.role);
            let detail = json!({"rollout": id, "version": rollout.target.version, "reason": reason});
            let alert = alerts::Raise { kind: STOPPED, subject: &subject, severity: "critical", detail };
            alerts::raise(catalog, alert, now).await?;
        }
        let kind = format!("rollout-{}", rollout.state.name());
        let message = format!("rollout {id} of {}: {}", what(rollout), changed.messages.join("; "));
        let detail = json!({"rollout": id, "version": rollout.target.version, "assigned": changed.outgoing.len()});
        story::tell(catalog, &rollout.line, &kind, &message, detail, now).await?;
    }
    Ok(changed)
}

/// Everything that follows from a committed step.
async fn act(hub: &Arc<Hub>, changed: Changed, now: Micros) {
    let Changed { outgoing, messages, rollout, stopped } = changed;
    send(hub, outgoing);
    let Some(rollout) = rollout else { return };
    let told = json!({
        "rollout": rollout.id, "line": rollout.line, "role": rollout.role, "version": rollout.target.version,
        "state": rollout.state.name(), "reasons": messages, "time": now,
    });
    hub.connections.publish_hub("rollouts", told.to_string());
    // Only the step that stopped it: later ones of the same state only wait for devices.
    if let (RolloutState::Stopping { reason, .. }, true) = (&rollout.state, stopped) {
        restore_alias(hub, &rollout, reason, now).await;
    }
}

async fn restore_alias(hub: &Arc<Hub>, rollout: &Rollout, reason: &str, now: Micros) {
    if rollout.role != Role::primary() {
        // An experiment that failed says nothing about the champion.
        return;
    }
    let restored = closed_loop::rollout_aborted(hub, &rollout.line, rollout.target.version, reason, now).await;
    if let Err(error) = restored {
        tracing::error!(rollout = rollout.id, error = format!("{error:#}"), "the champion could not be restored");
    }
}

/// Sends what is signed. A device that is away asks by its report when it is back.
fn send(hub: &Hub, outgoing: Vec<Outgoing>) {
    for Outgoing { device, generation, signed } in outgoing {
        match hub.connections.send(&device, Channel::Assignment, signed.encode()) {
            Ok(()) => tracing::info!(device_id = %device, generation = generation.0, "assignment sent"),
            Err(error) => tracing::info!(device_id = %device, generation = generation.0, %error, "assignment waits"),
        }
    }
}

async fn answer(hub: &Arc<Hub>, device: &DeviceId, report: (Generation, bool)) -> anyhow::Result<()> {
    let mut catalog = hub.catalog.write().await?;
    let answer = assignments::respond(&mut catalog, &hub.keys.assignment(), device, report, hub.now()).await?;
    catalog.commit().await?;
    send(hub, answer.into_iter().collect());
    Ok(())
}

/// Answers every device's last report once more: what has changed for it meanwhile is signed and sent. In pieces, so
/// that others come to write in between; a device whose turn an error took gets it with its next report.
pub async fn refresh(hub: &Arc<Hub>, now: Micros) -> Result<(), RolloutError> {
    let members = fleet::members(&mut *hub.catalog.reader().acquire().await?).await?;
    let reported = members.iter().filter_map(|member| Some((&member.device, member.report.as_ref()?)));
    let reported: Vec<_> = reported.map(|(device, report)| (device, (report.generation, report.asks))).collect();
    for piece in reported.chunks(AT_ONCE) {
        let mut catalog = hub.catalog.write().await.map_err(RolloutError::from)?;
        let mut outgoing = Vec::new();
        for &(device, said) in piece {
            outgoing.extend(assignments::respond(&mut catalog, &hub.keys.assignment(), device, said, now).await?);
        }
        catalog.commit().await?;
        send(hub, outgoing);
    }
    Ok(())
}
