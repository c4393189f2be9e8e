//! The repository as devices, mirrors and people fetch it: one layout, whatever way they come.
//!
//! ```text
//! metadata/timestamp.json                           the newest, replaced
//! metadata/N.root.json, N.snapshot.json, N.targets.json, N.models%2FLINE.json
//! targets/models/LINE/SHA256.vN.tpk                 packages
//! targets/assignments/SHA256.keys.json              and other targets
//! patches/SHA256/…                                  cheaper ways to a package
//! ```

use std::path::PathBuf;

use axum::body::Bytes;
use serde_json::Value;
use sqlx::SqliteConnection;
use tributary_wire::{DeviceId, LineName, Sha256, VersionNumber};

use super::path::{self, Wanted};
use super::{PublishError, store};
use crate::access::own;
use crate::hub::Hub;
use crate::patches;
use crate::registry::RegistryError;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reader {
    /// A device: all metadata, and packages of releases that it is or was assigned.
    Device(DeviceId),
    /// A person or service with a token that may read.
    Everyone,
}

/// A file of the repository.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its length in bytes.
    pub length: u64,
    /// Names its content: two files with the same one are the same.
    pub etag: String,
    /// Whether this path will never have other content.
    pub immutable: bool,
    /// The media type.
    pub media: &'static str,
    /// Where it is.
    pub content: Content,
}

/// Where a file is.
#[derive(Debug, Clone)]
pub enum Content {
    /// On disk.
    File(PathBuf),
    /// Here.
    Bytes(Bytes),
}

/// Finds a file by its path below the repository's base. What the reader may not have is not there.
pub async fn open(hub: &Hub, reader: &Reader, path: &str) -> Result<Option<Found>, PublishError> {
    let Some(wanted) = path::read(path) else { return Ok(None) };
    let mut catalog = hub.catalog.reader().acquire().await?;
    match wanted {
        Wanted::Timestamp => Ok(store::newest(&mut *catalog, "timestamp").await?.map(|stored| metadata(stored, false))),
        Wanted::Metadata { role, version } => {
            Ok(store::version(&mut *catalog, &role, version).await?.map(|stored| metadata(stored, true)))
        }
        Wanted::Package { line, version, sha256 } => {
            let released = is_release(&mut catalog, &line, version, &sha256).await?;
            let own = match reader {
                Reader::Device(device) => own::has_package(&mut *catalog, device, &sha256).await?,
                Reader::Everyone => true,
            };
            if released && own { on_disk(hub, sha256).await } else { Ok(None) }
        }
        Wanted::Target { path, sha256 } => match named(&mut catalog, &path, &sha256).await? {
            true => on_disk(hub, sha256).await,
            false => Ok(None),
        },
        Wanted::Patch { to, name } => patches::open(hub, &mut catalog, reader, (&to, &name)).await,
    }
}

fn metadata(stored: store::Stored, immutable: bool) -> Found {
    Found {
        length: stored.bytes.len() as u64,
        etag: stored.sha256,
        immutable,
        media: "application/json",
        content: Content::Bytes(stored.bytes.into()),
    }
}

/// Whether a signed role named, or names, this file as that version. A withdrawn release is still there for devices that
/// run it and have to go back to it.
async fn is_release(
    catalog: &mut SqliteConnection,
    line: &LineName,
    version: VersionNumber,
    sha256: &Sha256,
) -> Result<bool, sqlx::Error> {
    let query = "select exists (select 1 from releases where line = $1 and version = $2 and sha256 = $3
                 and state <> 'waiting')";
    let query = sqlx::query_scalar(query).bind(line.as_str()).bind(i64::from(version.0)).bind(sha256.to_string());
    query.fetch_one(catalog).await
}

/// Whether the newest metadata of the role that this path belongs to names it with this content.
async fn named(catalog: &mut SqliteConnection, path: &str, sha256: &Sha256) -> Result<bool, PublishError> {
    let first = path.split('/').next().unwrap_or_default();
    let reserved = tributary_release::RESERVED_ROLES.iter().any(|(role, _)| *role == first);
    let role = if reserved { first } else { "targets" };
    let Some(stored) = store::newest(&mut *catalog, role).await? else { return Ok(false) };
    let metadata: Value = serde_json::from_slice(&stored.bytes)
        .map_err(|error| RegistryError::unreadable("signed metadata", format!("{role}: {error}")))?;
    let hash = &metadata["signed"]["targets"][path]["hashes"]["sha256"];
    Ok(hash.as_str() == Some(sha256.to_string().as_str()))
}

pub(crate) async fn on_disk(hub: &Hub, sha256: Sha256) -> Result<Option<Found>, PublishError> {
    let path = hub.packages.path(&sha256);
    match tokio::fs::metadata(&path).await {
        Ok(file) => Ok(Some(Found {
            length: file.len(),
            etag: sha256.to_string(),
            immutable: true,
            media: "application/octet-stream",
            content: Content::File(path),
        })),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(RegistryError::NoPackage(sha256).into()),
        Err(error) => Err(RegistryError::File(error).into()),
    }
}
