//! Versions: immutable members of a model line, each one package with its lineage.

use cloud_hub_core::rollout::restored::{next_version, versions_of};
use serde_json::{Value, json};
use sqlx::SqliteConnection;
use tributary_release::Package;
use tributary_wire::{LineName, Micros, ReleaseRef, Report, Sha256, VersionNumber};

use super::RegistryError;
use crate::audit::{self, Change};

/// A version as the catalog keeps it.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct VersionRecord {
    /// Its line.
    pub line: String,
    /// Its number.
    pub version: i64,
    /// Hash of its package file.
    pub sha256: String,
    /// Length of its package file in bytes.
    pub length: i64,
    /// `trained` or `uploaded`.
    pub origin: String,
    /// The run that made it.
    pub run: Option<i64>,
    /// The dataset it was trained on.
    pub dataset: Option<i64>,
    /// The seed it was trained with.
    pub seed: Option<i64>,
    /// The champion it was measured against.
    pub parent: Option<i64>,
    /// The package's manifest.
    pub manifest_json: String,
    /// What the run found; `null` for an uploaded one.
    pub result_json: String,
    /// When it was registered, UTC microseconds.
    pub created: i64,
}

impl VersionRecord {
    /// Number, length and hash, as assignments and releases repeat them.
    pub fn reference(&self) -> Result<ReleaseRef, RegistryError> {
        Ok(ReleaseRef {
            version: VersionNumber(self.version as u32),
            length: self.length as u64,
            sha256: self.sha256.parse().map_err(|error| RegistryError::unreadable("a package hash", error))?,
        })
    }
}

/// Where a version comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Origin {
    /// A run of this hub.
    Trained {
        /// The run.
        run: i64,
        /// Its dataset.
        dataset: Option<i64>,
        /// Its seed.
        seed: i64,
        /// The champion it was measured against.
        parent: Option<VersionNumber>,
        /// What it found.
        result: Value,
    },
    /// A package file that was sent.
    Uploaded,
}

/// Registers a package that was read and stored. The same package again changes nothing; the answer says whether it was new.
pub async fn register(
    catalog: &mut SqliteConnection,
    line: &LineName,
    package: &Package,
    (sha256, length): (Sha256, u64),
    origin: Origin,
    now: Micros,
) -> Result<(VersionRecord, bool), RegistryError> {
    let manifest = &package.manifest;
    if manifest.line != *line {
        return Err(RegistryError::OtherLine { expected: line.clone(), found: manifest.line.clone() });
    }
    if let Some(known) = find(catalog, line, manifest.version).await? {
        return match known.sha256 == sha256.to_string() {
            true => Ok((known, false)),
            false => Err(RegistryError::VersionExists(line.clone(), manifest.version)),
        };
    }
    let query = "select exists (select 1 from restore_packages where line = $1 and version = $2 and sha256 <> $3)";
    let taken: bool = sqlx::query_scalar(query)
        .bind(line.as_str())
        .bind(i64::from(manifest.version.0))
        .bind(sha256.to_string())
        .fetch_one(&mut *catalog)
        .await?;
    if taken {
        // Devices have another package under this number, from before this catalog was restored.
        return Err(RegistryError::VersionExists(line.clone(), manifest.version));
    }
    let (name, run, dataset, seed, parent, result) = match origin {
        Origin::Trained { run, dataset, seed, parent, result } => {
            ("trained", Some(run), dataset, Some(seed), parent.map(|v| i64::from(v.0)), result)
        }
        Origin::Uploaded => {
            refuse_reserved(catalog, line, manifest.version).await?;
            ("uploaded", None, None, None, None, Value::Null)
        }
    };
    let manifest_json = serde_json::to_string(manifest).map_err(|e| RegistryError::unreadable("a manifest", e))?;
    sqlx::query(
        "insert into versions (line, version, sha256, length, origin, run, dataset, seed, parent, manifest_json,
         result_json, created) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(line.as_str())
    .bind(i64::from(manifest.version.0))
    .bind(sha256.to_string())
    .bind(length as i64)
    .bind(name)
    .bind(run)
    .bind(dataset)
    .bind(seed)
    .bind(parent)
    .bind(manifest_json)
    .bind(result.to_string())
    .bind(now.0)
    .execute(&mut *catalog)
    .await?;
    let subject = format!("{line}/{}", manifest.version);
    let to = json!({"origin": name, "sha256": sha256, "length": length, "run": run, "dataset": dataset});
    let change = Change { action: "version.register", subject: &subject, from: Value::Null, to };
    audit::record(catalog, change, now).await?;
    Ok((get(catalog, line, manifest.version).await?, true))
}

/// An upload must not take the number that a run under way was given.
async fn refuse_reserved(
    catalog: &mut SqliteConnection,
    line: &LineName,
    version: VersionNumber,
) -> Result<(), RegistryError> {
    let query = "select id from runs where line = $1 and version = $2 and state in ('queued', 'running')";
    let run: Option<i64> =
        sqlx::query_scalar(query).bind(line.as_str()).bind(i64::from(version.0)).fetch_optional(catalog).await?;
    match run {
        None => Ok(()),
        Some(run) => Err(RegistryError::VersionReserved { line: line.clone(), version, run }),
    }
}

/// The number the next version of a line gets: above all versions, all numbers that runs reserved, and after a restore
/// all that devices have, had or try from before it, as far as they are to be believed.
pub async fn next_number(catalog: &mut SqliteConnection, line: &LineName) -> Result<VersionNumber, RegistryError> {
    let query = "select coalesce(max(version), 0) from
                 (select version from versions where line = $1
                  union all select version from runs where line = $1 and version is not null)";
    let given: i64 = sqlx::query_scalar(query).bind(line.as_str()).fetch_one(&mut *catalog).await?;
    let query = "select version from restore_packages where line = $1";
    let found: Vec<i64> = sqlx::query_scalar(query).bind(line.as_str()).fetch_all(&mut *catalog).await?;
    let query = "select report from devices where report is not null and exists (select 1 from restores)";
    let reports: Vec<Vec<u8>> = sqlx::query_scalar(query).fetch_all(catalog).await?;
    let reports: Vec<Report> = reports.iter().filter_map(|bytes| Report::decode(bytes).ok()).collect();
    let number = |version: i64| VersionNumber(u32::try_from(version).unwrap_or(u32::MAX));
    let reported = versions_of(reports.iter().flat_map(|report| &report.base().lines), line);
    Ok(next_version(number(given), found.into_iter().map(number).chain(reported)))
}

/// One version.
pub async fn find(
    catalog: &mut SqliteConnection,
    line: &LineName,
    version: VersionNumber,
) -> Result<Option<VersionRecord>, RegistryError> {
    let query = "select * from versions where line = $1 and version = $2";
    Ok(sqlx::query_as(query).bind(line.as_str()).bind(i64::from(version.0)).fetch_optional(catalog).await?)
}

/// As [`find`], but its absence is an error.
pub async fn get(
    catalog: &mut SqliteConnection,
    line: &LineName,
    version: VersionNumber,
) -> Result<VersionRecord, RegistryError> {
    find(catalog, line, version).await?.ok_or_else(|| RegistryError::NoVersion(line.clone(), version))
}

/// The versions of a line below a number, newest first.
pub async fn list(
    catalog: &mut SqliteConnection,
    line: &LineName,
    before: i64,
    limit: u32,
) -> Result<Vec<VersionRecord>, RegistryError> {
    let query = "select * from versions where line = $1 and version < $2 order by version desc limit $3";
    Ok(sqlx::query_as(query).bind(line.as_str()).bind(before).bind(i64::from(limit)).fetch_all(catalog).await?)
}
