//! Roles beside the primary: what may be asked of a rollout, and how shares of predictions add up.

use cloud_hub_core::rollout::assignments::WHOLE;
use cloud_hub_core::rollout::{Policy, RolloutState};
use cloud_hub_core::selector::Selector;
use serde_json::json;
use sqlx::SqliteConnection;
use tributary_wire::{LineName, Micros, ReleaseRef, Role, VersionNumber};

use super::store::{self, Stored};
use super::{RolloutError, fleet};
use crate::audit::{self, Change};

/// What a rollout is asked to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// Model line.
    pub line: LineName,
    /// What the package does on a device.
    pub role: Role,
    /// A published version of the line.
    pub version: VersionNumber,
    /// Of how many entities in 10 000 a challenger answers; 0: it is only scored.
    pub share: u16,
    /// Whom it is for.
    pub selector: Selector,
    /// The rules; the line's own when left out.
    pub policy: Option<Policy>,
    /// Why, for people.
    pub reason: String,
}

impl Order {
    /// A version for the primary role of every device.
    pub fn primary(line: &LineName, version: VersionNumber, policy: Option<Policy>, reason: &str) -> Self {
        let (line, role, selector) = (line.clone(), Role::primary(), Selector::default());
        Self { line, role, version, share: 0, selector, policy, reason: reason.to_owned() }
    }

    /// Refuses what no device could do. What others have is looked up.
    pub(super) async fn check(&self, catalog: &mut SqliteConnection) -> Result<(), RolloutError> {
        let Self { role, .. } = self;
        if !role.is_challenger() && *role != Role::primary() && *role != Role::shadow() {
            return Err(RolloutError::Role { role: role.clone() });
        }
        room(catalog, (&self.line, role, &self.selector), self.share).await
    }

    /// The release that it names, once signed metadata names it too: a device would not believe the hub alone.
    pub(super) async fn release(&self, catalog: &mut SqliteConnection) -> Result<ReleaseRef, RolloutError> {
        let Self { line, version, .. } = self;
        let query = "select version, length, sha256, state from releases where line = $1 and version = $2";
        let row: Option<(i64, i64, String, String)> =
            sqlx::query_as(query).bind(line.as_str()).bind(i64::from(version.0)).fetch_optional(catalog).await?;
        let (line, version) = (line.clone(), *version);
        let (number, length, sha256, state) = row.ok_or(RolloutError::NotPublished { line: line.clone(), version })?;
        match state.as_str() {
            "published" => store::release(number, length, &sha256),
            "waiting" => Err(RolloutError::Waiting { line, version }),
            _ => Err(RolloutError::Withdrawn { line, version }),
        }
    }
}

/// Refuses a share for which the challengers beside it leave no room, on any device that is meant.
async fn room(
    catalog: &mut SqliteConnection,
    (line, role, selector): (&LineName, &Role, &Selector),
    share: u16,
) -> Result<(), RolloutError> {
    if share == 0 {
        return Ok(());
    }
    if !role.is_challenger() {
        return Err(RolloutError::NoShare { role: role.clone() });
    }
    let refuse = |others: u64, device: String| {
        let (line, role) = (line.clone(), role.clone());
        Err(RolloutError::Shares { line, role, share, others, device })
    };
    if u64::from(share) > WHOLE {
        return refuse(0, "every device".to_owned());
    }
    // What others may still give out …
    let mut planned = 0;
    for other in beside(catalog, line, role).await? {
        let rollout = &other.rollout;
        if !rollout.state.is_stopped() && rollout.selector.may_overlap(selector) {
            planned += u64::from(rollout.share);
        }
    }
    if planned + u64::from(share) > WHOLE {
        return refuse(planned, "devices that both are for".to_owned());
    }
    // … and what they have given out.
    let query = "select device, cast(sum(share) as bigint) from wishes where line = $1 and role <> $2 and share > 0
                 group by device";
    let held: Vec<(String, i64)> =
        sqlx::query_as(query).bind(line.as_str()).bind(role.as_str()).fetch_all(&mut *catalog).await?;
    let members = if held.is_empty() { Vec::new() } else { fleet::members(catalog).await? };
    for (device, others) in held {
        let meant = members.iter().any(|it| it.device.as_str() == device && selector.matches(&it.labels));
        if meant && others as u64 + u64::from(share) > WHOLE {
            return refuse(others as u64, format!("device {device}"));
        }
    }
    Ok(())
}

/// The newest rollout of every other role of a line.
async fn beside(catalog: &mut SqliteConnection, line: &LineName, role: &Role) -> Result<Vec<Stored>, RolloutError> {
    let query = "select max(id) from rollouts where line = $1 and role <> $2 group by role";
    let newest: Vec<i64> =
        sqlx::query_scalar(query).bind(line.as_str()).bind(role.as_str()).fetch_all(&mut *catalog).await?;
    let mut found = Vec::with_capacity(newest.len());
    for id in newest {
        found.push(store::get(catalog, id).await?);
    }
    Ok(found)
}

/// The rollout that answers for its line and role.
pub(super) async fn answering(catalog: &mut SqliteConnection, id: i64) -> Result<Stored, RolloutError> {
    let stored = store::get(catalog, id).await?;
    let (line, role) = (stored.rollout.line.clone(), stored.rollout.role.clone());
    match store::newest(catalog, &line, &role).await? {
        Some(newest) if newest.rollout.id != id => {
            Err(RolloutError::Superseded { rollout: id, by: newest.rollout.id, line, role })
        }
        _ => Ok(stored),
    }
}

/// Gives a challenger another share, on every device that has it of this rollout and on those that will. What follows
/// is that these devices' assignments are stale.
pub async fn change_share(
    catalog: &mut SqliteConnection,
    id: i64,
    share: u16,
    reason: &str,
    now: Micros,
) -> Result<Stored, RolloutError> {
    let mut stored = answering(catalog, id).await?;
    let rollout = &stored.rollout;
    if matches!(rollout.state, RolloutState::Stopping { .. } | RolloutState::Stopped { .. }) {
        let (command, state) = ("given another share", rollout.state.name());
        return Err(cloud_hub_core::rollout::CommandError { command, state }.into());
    }
    if !rollout.role.is_challenger() {
        return Err(RolloutError::NoShare { role: rollout.role.clone() });
    }
    room(catalog, (&rollout.line, &rollout.role, &rollout.selector), share).await?;
    let before = std::mem::replace(&mut stored.rollout.share, share);
    if before == share {
        return Ok(stored);
    }
    store::update(catalog, &mut stored, now).await?;
    let said = format!("the share is {share} in {WHOLE}, it was {before}: {reason}");
    store::tell(catalog, &stored.rollout, &said, now).await?;
    sqlx::query("update wishes set share = $1 where rollout = $2")
        .bind(i64::from(share))
        .bind(id)
        .execute(&mut *catalog)
        .await?;
    let (from, to) = (json!({"share": before}), json!({"share": share, "reason": reason}));
    audit::record(catalog, Change { action: "rollout.share", subject: &id.to_string(), from, to }, now).await?;
    Ok(stored)
}
