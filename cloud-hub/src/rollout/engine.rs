//! One step of a rollout inside a transaction: read, plan, store, sign. Nothing here sends.

use std::collections::BTreeMap;

use cloud_hub_core::rollout::assignments::Wish;
use cloud_hub_core::rollout::{
    Evidence, Known, Member, Plan, Policy, Rollout, Step, Target, advance as step, baseline, outlook as outlook_of,
};
use serde_json::{Value, json};
use sqlx::SqliteConnection;
use tributary_release::SigningKey;
use tributary_wire::{DeviceId, Generation, Micros, ReleaseRef, Role};

use super::assignments::Outgoing;
use super::fleet::{members, releases};
use super::roles::{Order, answering};
use super::store::{self, Stored};
use super::{RolloutError, assignments, restored};
use crate::audit::{self, Change};
use crate::backup::Standing;
use crate::patches;

/// What an operator wants of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Hold it.
    Pause,
    /// Go on.
    Resume,
    /// Stop it for good and take every device back.
    Abort,
    /// Take a role beside the primary from every device.
    End,
}

/// What a step did.
#[derive(Debug, Default)]
pub struct Changed {
    /// To be sent after the commit.
    pub outgoing: Vec<Outgoing>,
    /// In words; also stored with the rollout.
    pub messages: Vec<String>,
    /// The rollout as it is then, when it changed.
    pub rollout: Option<Rollout>,
    /// The planner stopped it in this step.
    pub stopped: bool,
}

/// Begins a rollout. Its first wave is assigned by the next [`advance`].
pub async fn begin(
    catalog: &mut SqliteConnection,
    order: &Order,
    policy: Policy,
    now: Micros,
) -> Result<Stored, RolloutError> {
    policy.check()?;
    order.check(catalog).await?;
    let target = order.release(catalog).await?;
    let Order { line, role, version, reason, .. } = order;
    let id = store::next_id(catalog).await?;
    if let Some(mut last) = store::newest(catalog, line, role).await? {
        let state = last.rollout.state.name();
        let open = RolloutError::UnderWay { rollout: last.rollout.id, line: line.clone(), role: role.clone(), state };
        let before = last.rollout.state.clone();
        last.rollout.supersede(id, now).map_err(|_| open)?;
        if last.rollout.state != before {
            store::update(catalog, &mut last, now).await?;
            store::tell(catalog, &last.rollout, &format!("superseded by rollout {id}"), now).await?;
            let subject = last.rollout.id.to_string();
            let (from, to) = (json!(before), json!({"state": last.rollout.state, "superseded_by": id}));
            let change = Change { action: "rollout.supersede", subject: &subject, from, to };
            audit::record(catalog, change, now).await?;
        }
    }
    let members = members(catalog).await?;
    let mut rollout = Rollout::new(id, line.clone(), role.clone(), target, policy, now);
    (rollout.share, rollout.selector) = (order.share, order.selector.clone());
    let baseline = baseline(&members, line, role);
    let stored = Stored { rollout, baseline, epoch: 1, reason: reason.to_owned(), changed: now };
    store::insert(catalog, &stored).await?;
    store::tell(catalog, &stored.rollout, &format!("version {version} is rolled out: {reason}"), now).await?;
    let to = json!({
        "line": line, "role": role, "version": version, "sha256": stored.rollout.target.sha256,
        "share": order.share, "selector": order.selector, "policy": stored.rollout.policy, "reason": reason,
    });
    let change = Change { action: "rollout.start", subject: &id.to_string(), from: Value::Null, to };
    audit::record(catalog, change, now).await?;
    Ok(stored)
}

/// What the planner would do now, and on which evidence; changes nothing.
pub async fn outlook(
    catalog: &mut SqliteConnection,
    patches: &patches::Config,
    stored: &Stored,
    now: Micros,
) -> Result<(Plan, Vec<Member>, Evidence), RolloutError> {
    let rollout = &stored.rollout;
    let members = members(catalog).await?;
    let beside = Beside::read(catalog, patches, (rollout, &members), now).await?;
    let (plan, evidence) = outlook_of(rollout, &stored.baseline, &members, beside.known(), now);
    Ok((plan, members, evidence))
}

/// What the catalog holds beside rollouts and reports.
struct Beside {
    wishes: BTreeMap<DeviceId, ReleaseRef>,
    generations: BTreeMap<DeviceId, Generation>,
    releases: Vec<ReleaseRef>,
    standing: Option<Standing>,
    patches: usize,
}

impl Beside {
    async fn read(
        catalog: &mut SqliteConnection,
        config: &patches::Config,
        (rollout, members): (&Rollout, &[Member]),
        now: Micros,
    ) -> Result<Self, RolloutError> {
        let wishes = assignments::wishes(catalog, &rollout.line, &rollout.role).await?;
        let generations = assignments::generations(catalog).await?;
        let standing = Standing::read(catalog).await?;
        let releases = releases(catalog, &rollout.line).await?;
        let patches = patches::awaited(catalog, config, rollout, members, now).await?;
        Ok(Self { wishes, generations, releases, standing, patches })
    }

    fn known(&self) -> Known<'_> {
        let restored = self.standing.as_ref().map(|standing| &standing.restored);
        let Self { wishes, generations, releases, patches, .. } = self;
        Known { wishes, generations, releases, restored, patches: *patches }
    }
}

/// Asks the planner and carries out its plan up to the signatures.
pub async fn advance(
    catalog: &mut SqliteConnection,
    (key, patches): (&SigningKey, &patches::Config),
    id: i64,
    now: Micros,
) -> Result<Changed, RolloutError> {
    let mut stored = store::get(catalog, id).await?;
    let members = members(catalog).await?;
    let beside = Beside::read(catalog, patches, (&stored.rollout, &members), now).await?;
    let before = json!({"state": stored.rollout.state});
    let stepped = step(&mut stored.rollout, &mut stored.baseline, &members, beside.known(), now);
    let Some(Step { plan, stopped }) = stepped else { return Ok(Changed::default()) };
    store::update(catalog, &mut stored, now).await?;
    for message in &plan.reasons {
        store::tell(catalog, &stored.rollout, message, now).await?;
    }
    // Before anything is signed: the head that an assignment carries covers the decision behind it.
    let to = json!({"state": stored.rollout.state, "reasons": plan.reasons, "assigned": assigned(&plan)});
    let change = Change { action: "rollout.step", subject: &id.to_string(), from: before, to };
    audit::record_own(catalog, change, now).await?;
    let mut outgoing = Vec::with_capacity(plan.assign.len());
    for assign in &plan.assign {
        let wish = Wish::of(&stored.rollout, assign);
        assignments::wish(catalog, &assign.device, &stored.rollout, wish).await?;
        let installs = matches!(assign.target, Target::Install { .. });
        if installs && assignments::is_held(catalog, &assign.device).await? {
            continue;
        }
        if beside.standing.is_some() && restored::holds(catalog, &assign.device).await? {
            continue;
        }
        let reported = members.iter().find(|member| member.device == assign.device).and_then(|m| m.report.as_ref());
        let reported = reported.map_or(Generation(0), |report| report.generation);
        outgoing.push(assignments::sign(catalog, key, &assign.device, reported, now).await?);
    }
    Ok(Changed { outgoing, messages: plan.reasons, rollout: Some(stored.rollout), stopped })
}

/// Whom a plan gives what, as the audit log shows it.
fn assigned(plan: &Plan) -> Value {
    let version = |target: &Target| match target {
        Target::Install { .. } => json!("install"),
        Target::Rollback { to } => json!({"back_to": to.as_ref().map(|release| release.version)}),
    };
    plan.assign.iter().map(|assign| (assign.device.to_string(), version(&assign.target))).collect()
}

/// Carries out an operator's command; what follows from it is for the next [`advance`], in the same transaction.
pub async fn carry_out(
    catalog: &mut SqliteConnection,
    id: i64,
    command: Command,
    reason: &str,
    now: Micros,
) -> Result<Stored, RolloutError> {
    let mut stored = store::get(catalog, id).await?;
    let before = json!({"state": stored.rollout.state});
    let said = match command {
        Command::Pause => stored.rollout.pause(reason, now).map(|()| "paused"),
        Command::Resume => stored.rollout.resume(now).map(|()| "resumed"),
        Command::Abort => stored.rollout.abort(reason, now).map(|()| "aborted"),
        Command::End => {
            stored = answering(catalog, id).await?;
            let (line, role) = (stored.rollout.line.clone(), stored.rollout.role.clone());
            if role == Role::primary() {
                return Err(RolloutError::Primary { line });
            }
            let holders = assignments::wishes(catalog, &line, &role).await?;
            stored.rollout.end(holders.into_keys(), reason, now);
            Ok("ended")
        }
    }?;
    store::update(catalog, &mut stored, now).await?;
    store::tell(catalog, &stored.rollout, &format!("{said}: {reason}"), now).await?;
    let action = match command {
        Command::Pause => "rollout.pause",
        Command::Resume => "rollout.resume",
        Command::Abort => "rollout.abort",
        Command::End => "rollout.end",
    };
    let to = json!({"state": stored.rollout.state, "reason": reason});
    audit::record(catalog, Change { action, subject: &id.to_string(), from: before, to }, now).await?;
    Ok(stored)
}
