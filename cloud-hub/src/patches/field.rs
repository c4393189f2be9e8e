//! What is released, and what devices hold.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::SqliteConnection;
use tributary_wire::{Sha256, VersionNumber};

use super::plan::Target;
use crate::registry::RegistryError;
use crate::rollout::{Member, RolloutError, read};

/// The newest release of every line, those that devices are assigned, and those that rollouts wait for, which come
/// first; with what the devices hold.
pub(super) async fn targets(catalog: &mut SqliteConnection) -> Result<Vec<Target>, RolloutError> {
    let query = "with rolling as (select line, sha256 from rollouts where state in ('running', 'paused'))
                 select r.line, r.sha256, r.length from releases r where r.state = 'published' and (
                     r.version = (select max(n.version) from releases n where n.line = r.line and n.state = 'published')
                     or exists (select 1 from wishes w where w.line = r.line and w.sha256 = r.sha256)
                     or (r.line, r.sha256) in (select line, sha256 from rolling))
                 order by (r.line, r.sha256) in (select line, sha256 from rolling) desc, r.line, r.version desc";
    let releases: Vec<(String, String, i64)> = sqlx::query_as(query).fetch_all(&mut *catalog).await?;
    if releases.is_empty() {
        return Ok(Vec::new());
    }
    let members = read::members(catalog).await?;
    let mut targets = Vec::new();
    for (line, sha256, length) in releases {
        let sha256: Sha256 =
            sha256.parse().map_err(|error| RegistryError::unreadable("the hash of a release", error))?;
        targets.push(Target { sha256, length: length as u64, held: held(catalog, &members, &line, &sha256).await? });
    }
    Ok(targets)
}

/// The packages of a line that devices hold which do not run this one yet, and how many devices that are.
pub(super) async fn held(
    catalog: &mut SqliteConnection,
    members: &[Member],
    line: &str,
    sha256: &Sha256,
) -> Result<BTreeMap<Sha256, usize>, RolloutError> {
    let query = "select version, sha256 from versions where line = $1";
    let known: Vec<(i64, String)> = sqlx::query_as(query).bind(line).fetch_all(catalog).await?;
    let known: BTreeSet<_> = known.into_iter().collect();
    let mut held: BTreeMap<Sha256, usize> = BTreeMap::new();
    for report in members.iter().filter_map(|member| member.report.as_ref()).flat_map(|report| &report.lines) {
        // Whoever runs it already does not come this way again.
        if report.line.as_str() != line || report.committed.is_some_and(|package| package.sha256 == *sha256) {
            continue;
        }
        for package in [report.committed, report.previous].into_iter().flatten() {
            let VersionNumber(version) = package.version;
            // A package that came another way cannot be read here.
            if known.contains(&(version.into(), package.sha256.to_string())) {
                *held.entry(package.sha256).or_default() += 1;
            }
        }
    }
    Ok(held)
}
