//! The rows of releases, and what the signed metadata says of each.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::SqliteConnection;
use tributary_release::{CUSTOM, Manifest, PackageCustom, package_path};
use tributary_wire::{LineName, Micros, VersionNumber};
use utoipa::ToSchema;

use super::roles::Target;
use crate::registry::{RegistryError, versions};

/// A release as the catalog keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::FromRow)]
pub struct Release {
    /// Which line.
    pub line: String,
    /// Which version of it.
    pub version: i64,
    /// Hash of the package file.
    pub sha256: String,
    /// Length of the package file in bytes.
    pub length: i64,
    /// `waiting` for a person's signature (the line is attended), `published`, or `withdrawn`.
    pub state: String,
    /// The keys that signed, as the metadata names them; empty while it waits.
    pub key_id: String,
    /// When it was published, UTC microseconds; while it waits, since when.
    pub published: i64,
}

impl Release {
    /// Whether devices may be sent to it.
    pub fn is_published(&self) -> bool {
        self.state == "published"
    }

    /// Whether it was taken back.
    pub fn is_withdrawn(&self) -> bool {
        self.state == "withdrawn"
    }

    /// Whether it waits for a person.
    pub fn is_waiting(&self) -> bool {
        self.state == "waiting"
    }
}

const COLUMNS: &str = "select line, version, sha256, length, state, key_id, published from releases";

/// The release of a version, if somebody asked for one.
pub async fn find(
    catalog: &mut SqliteConnection,
    line: &LineName,
    version: VersionNumber,
) -> Result<Option<Release>, RegistryError> {
    let query = format!("{COLUMNS} where line = $1 and version = $2");
    let query = sqlx::query_as(sqlx::AssertSqlSafe(query)).bind(line.as_str()).bind(i64::from(version.0));
    Ok(query.fetch_optional(catalog).await?)
}

/// All releases of a line below a version, newest first.
pub async fn list(
    catalog: &mut SqliteConnection,
    line: &LineName,
    before: i64,
    limit: u32,
) -> Result<Vec<Release>, RegistryError> {
    let query = format!("{COLUMNS} where line = $1 and version < $2 order by version desc limit $3");
    let query = sqlx::query_as(sqlx::AssertSqlSafe(query)).bind(line.as_str()).bind(before).bind(i64::from(limit));
    Ok(query.fetch_all(catalog).await?)
}

/// All releases of a line in a state, oldest first.
pub async fn in_state(
    catalog: &mut SqliteConnection,
    line: &LineName,
    state: &str,
) -> Result<Vec<Release>, RegistryError> {
    let query = format!("{COLUMNS} where line = $1 and state = $2 order by version");
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(query)).bind(line.as_str()).bind(state).fetch_all(catalog).await?)
}

/// Keeps a new release, or changes state and signers of a known one. `published` stays what it was, for it is signed.
pub async fn put(catalog: &mut SqliteConnection, release: &Release) -> Result<(), RegistryError> {
    // `signed` held what devices checked before there was a repository; nothing reads it any more.
    sqlx::query(
        "insert into releases (line, version, sha256, length, signed, key_id, published, state)
         values ($1, $2, $3, $4, x'', $5, $6, $7)
         on conflict (line, version) do update set state = excluded.state, key_id = excluded.key_id",
    )
    .bind(&release.line)
    .bind(release.version)
    .bind(&release.sha256)
    .bind(release.length)
    .bind(&release.key_id)
    .bind(release.published)
    .bind(&release.state)
    .execute(catalog)
    .await?;
    Ok(())
}

/// What the signed metadata says beside length and hash of a package.
pub async fn custom(
    catalog: &mut SqliteConnection,
    line: &LineName,
    version: VersionNumber,
    published: Micros,
) -> Result<PackageCustom, RegistryError> {
    let record = versions::get(catalog, line, version).await?;
    let manifest: Manifest = serde_json::from_str(&record.manifest_json)
        .map_err(|error| RegistryError::unreadable("a manifest", format!("{line} {version}: {error}")))?;
    Ok(PackageCustom { line: line.clone(), version, published, view: manifest.view, requires: manifest.requires })
}

/// A release as the line's role names it.
pub async fn target(catalog: &mut SqliteConnection, release: &Release) -> Result<Target, RegistryError> {
    let line = LineName::new(&release.line).map_err(|error| RegistryError::unreadable("a line", error))?;
    let version = VersionNumber(release.version as u32);
    let custom = custom(catalog, &line, version, Micros(release.published)).await?;
    let custom: Value = json!({ CUSTOM: custom });
    Ok(Target {
        path: package_path(&line, version),
        length: release.length as u64,
        sha256: release.sha256.parse().map_err(|error| RegistryError::unreadable("a package hash", error))?,
        custom: Some(custom),
    })
}
