//! Publishing: a version becomes a release when the hub signs its number, length and hash with the line key.
//!
//! A published release never changes: asking again gives the same signed bytes.

mod error;
mod keys;
mod path;
pub mod store;
pub mod files;
pub mod roles;

pub use error::PublishError;
pub use keys::{Keys, Purpose};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::SqliteConnection;
use tributary_release::{ReleaseV1, sign_release};
use tributary_wire::{LineName, Micros, VersionNumber};
use utoipa::ToSchema;

use crate::audit::{self, Change};
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
    /// The key that signed.
    pub key_id: String,
    /// When it was signed, UTC microseconds.
    pub published: i64,
}

/// Signs and keeps the release of a version. The answer says whether it was new.
pub async fn publish(
    catalog: &mut SqliteConnection,
    keys: &Keys,
    line: &LineName,
    version: VersionNumber,
    now: Micros,
) -> Result<(Release, bool), RegistryError> {
    if let Some(known) = find(catalog, line, version).await? {
        return Ok((known, false));
    }
    let reference = versions::get(catalog, line, version).await?.reference()?;
    let statement =
        ReleaseV1 { line: line.clone(), version, length: reference.length, sha256: reference.sha256, published: now };
    let release = Release {
        line: line.to_string(),
        version: version.0.into(),
        sha256: reference.sha256.to_string(),
        length: reference.length as i64,
        key_id: keys.line.id().to_string(),
        published: now.0,
    };
    sqlx::query(
        "insert into releases (line, version, sha256, length, signed, key_id, published)
         values ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&release.line)
    .bind(release.version)
    .bind(&release.sha256)
    .bind(release.length)
    .bind(sign_release(&keys.line, statement).encode())
    .bind(&release.key_id)
    .bind(release.published)
    .execute(&mut *catalog)
    .await?;
    let subject = format!("{line}/{version}");
    let to = json!({"sha256": release.sha256, "length": release.length, "key": release.key_id});
    let change = Change { action: "release.publish", subject: &subject, from: Value::Null, to };
    audit::record(catalog, change, now).await?;
    Ok((release, true))
}

/// The release of a version, if it was published.
pub async fn find(
    catalog: &mut SqliteConnection,
    line: &LineName,
    version: VersionNumber,
) -> Result<Option<Release>, RegistryError> {
    let query =
        "select line, version, sha256, length, key_id, published from releases where line = $1 and version = $2";
    Ok(sqlx::query_as(query).bind(line.as_str()).bind(i64::from(version.0)).fetch_optional(catalog).await?)
}

/// The signed release in its byte form, as devices fetch it.
pub async fn signed(
    catalog: &mut SqliteConnection,
    line: &LineName,
    version: VersionNumber,
) -> Result<Option<Vec<u8>>, RegistryError> {
    let query = "select signed from releases where line = $1 and version = $2";
    Ok(sqlx::query_scalar(query).bind(line.as_str()).bind(i64::from(version.0)).fetch_optional(catalog).await?)
}

/// All releases of a line below a version, newest first.
pub async fn list(
    catalog: &mut SqliteConnection,
    line: &LineName,
    before: i64,
    limit: u32,
) -> Result<Vec<Release>, RegistryError> {
    let query = "select line, version, sha256, length, key_id, published from releases
                 where line = $1 and version < $2 order by version desc limit $3";
    Ok(sqlx::query_as(query).bind(line.as_str()).bind(before).bind(i64::from(limit)).fetch_all(catalog).await?)
}
