//! What is released, and what devices hold.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::SqliteConnection;
use tributary_wire::{Sha256, VersionNumber};

use super::plan::Target;
use crate::registry::RegistryError;
use crate::rollout::{RolloutError, read};

/// The newest release of every line, and those that devices are assigned, with what the devices hold.
pub(super) async fn targets(catalog: &mut SqliteConnection) -> Result<Vec<Target>, RolloutError> {
    let query = "select r.line, r.version, r.sha256, r.length from releases r where r.state = 'published' and (
                     r.version = (select max(n.version) from releases n where n.line = r.line and n.state = 'published')
                     or exists (select 1 from wishes w where w.line = r.line and w.sha256 = r.sha256))
                 order by r.line, r.version desc";
    let releases: Vec<(String, i64, String, i64)> = sqlx::query_as(query).fetch_all(&mut *catalog).await?;
    if releases.is_empty() {
        return Ok(Vec::new());
    }
    let known: Vec<(String, i64, String)> =
        sqlx::query_as("select line, version, sha256 from versions").fetch_all(&mut *catalog).await?;
    let known: BTreeSet<_> = known.into_iter().collect();
    let members = read::members(catalog).await?;
    let mut targets = Vec::new();
    for (line, _, sha256, length) in releases {
        let sha256: Sha256 =
            sha256.parse().map_err(|error| RegistryError::unreadable("the hash of a release", error))?;
        let mut held: BTreeMap<Sha256, usize> = BTreeMap::new();
        for report in members.iter().filter_map(|member| member.report.as_ref()).flat_map(|report| &report.lines) {
            // Whoever runs it already does not come this way again.
            if report.line.as_str() != line || report.committed.is_some_and(|package| package.sha256 == sha256) {
                continue;
            }
            for package in [report.committed, report.previous].into_iter().flatten() {
                let VersionNumber(version) = package.version;
                // A package that came another way cannot be read here.
                if known.contains(&(line.clone(), version.into(), package.sha256.to_string())) {
                    *held.entry(package.sha256).or_default() += 1;
                }
            }
        }
        targets.push(Target { sha256, length: length as u64, held });
    }
    Ok(targets)
}
