//! Movable names of versions. A move is a row; no row is ever changed, so the whole history stays.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::SqliteConnection;
use tributary_wire::{LineName, Micros, VersionNumber};
use utoipa::ToSchema;

use super::{RegistryError, versions};
use crate::audit::{self, Change};

pub use cloud_hub_core::registry::CHAMPION;

/// The alias of the version that was trained or uploaded last.
pub const CANDIDATE: &str = "candidate";

/// One move of an alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::FromRow)]
pub struct AliasChange {
    /// Counts up; the alias's revision for `If-Match`.
    pub number: i64,
    /// The alias.
    pub alias: String,
    /// Where it points from then on.
    pub version: i64,
    /// Why it was moved.
    pub reason: String,
    /// When, UTC microseconds.
    pub changed: i64,
}

/// Moves an alias. `expected` is the revision that the caller saw (0: the alias did not exist).
pub async fn set(
    catalog: &mut SqliteConnection,
    line: &LineName,
    alias: &str,
    version: VersionNumber,
    reason: &str,
    expected: Option<i64>,
    now: Micros,
) -> Result<AliasChange, RegistryError> {
    cloud_hub_core::registry::check_alias(alias)?;
    versions::get(catalog, line, version).await?;
    let current = current(catalog, line, alias).await?;
    if let Some(expected) = expected
        && expected != current.as_ref().map_or(0, |change| change.number)
    {
        let found = current.map_or("nothing".to_owned(), |c| format!("version {} (revision {})", c.version, c.number));
        return Err(RegistryError::AliasMoved { alias: alias.to_owned(), expected, found });
    }
    // Pointing where it points already is no move.
    let from = match current {
        Some(current) if current.version == i64::from(version.0) => return Ok(current),
        current => current.map_or(Value::Null, |current| json!({"version": current.version})),
    };
    let subject = format!("{line}/{alias}");
    let to = json!({"version": version, "reason": reason});
    audit::record(catalog, Change { action: "alias.move", subject: &subject, from, to }, now).await?;
    let query = "insert into alias_changes (number, line, alias, version, reason, changed)
                 values ((select coalesce(max(number), 0) + 1 from alias_changes), $1, $2, $3, $4, $5)
                 returning number, alias, version, reason, changed";
    Ok(sqlx::query_as(query)
        .bind(line.as_str())
        .bind(alias)
        .bind(i64::from(version.0))
        .bind(reason)
        .bind(now.0)
        .fetch_one(catalog)
        .await?)
}

/// The newest move of an alias.
pub async fn current(
    catalog: &mut SqliteConnection,
    line: &LineName,
    alias: &str,
) -> Result<Option<AliasChange>, RegistryError> {
    let query = "select number, alias, version, reason, changed from alias_changes
                 where line = $1 and alias = $2 order by number desc limit 1";
    Ok(sqlx::query_as(query).bind(line.as_str()).bind(alias).fetch_optional(catalog).await?)
}

/// The version an alias points to.
pub async fn version(
    catalog: &mut SqliteConnection,
    line: &LineName,
    alias: &str,
) -> Result<Option<VersionNumber>, RegistryError> {
    Ok(current(catalog, line, alias).await?.map(|change| VersionNumber(change.version as u32)))
}

/// Where each alias of a line points now.
pub async fn all(catalog: &mut SqliteConnection, line: &LineName) -> Result<Vec<AliasChange>, RegistryError> {
    let query = "select number, alias, version, reason, changed from alias_changes where number in
                 (select max(number) from alias_changes where line = $1 group by alias) order by alias";
    Ok(sqlx::query_as(query).bind(line.as_str()).fetch_all(catalog).await?)
}

/// All moves of an alias below a number, newest first.
pub async fn history(
    catalog: &mut SqliteConnection,
    line: &LineName,
    alias: &str,
    before: i64,
    limit: u32,
) -> Result<Vec<AliasChange>, RegistryError> {
    let query = "select number, alias, version, reason, changed from alias_changes
                 where line = $1 and alias = $2 and number < $3 order by number desc limit $4";
    Ok(sqlx::query_as(query)
        .bind(line.as_str())
        .bind(alias)
        .bind(before)
        .bind(i64::from(limit))
        .fetch_all(catalog)
        .await?)
}
