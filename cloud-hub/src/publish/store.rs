//! Signed metadata in the catalog, by role and version. What is stored was verified, is served as it is, and never
//! changes.
//!
//! Roles go by their names in the specification: `root`, `targets`, `snapshot`, `timestamp`, or that of a delegated one.

use sqlx::{SqliteConnection, SqliteExecutor};
use tributary_wire::{Micros, Sha256};

use super::PublishError;

/// Older versions that are kept: a device in the middle of a refresh still asks for what its timestamp named.
const KEPT: i64 = 64;

/// One version of a role's metadata.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Stored {
    /// Whose.
    pub role: String,
    /// Which version.
    pub version: i64,
    /// As signed.
    pub bytes: Vec<u8>,
    /// Hash of the bytes.
    pub sha256: String,
    /// When it expires, UTC microseconds.
    pub expires: i64,
    /// When it was stored, UTC microseconds.
    pub stored: i64,
}

/// The newest version of a role.
pub async fn newest(catalog: impl SqliteExecutor<'_>, role: &str) -> Result<Option<Stored>, sqlx::Error> {
    let query = "select * from metadata where role = $1 order by version desc limit 1";
    sqlx::query_as(query).bind(role).fetch_optional(catalog).await
}

/// One version of a role.
pub async fn version(
    catalog: impl SqliteExecutor<'_>,
    role: &str,
    version: i64,
) -> Result<Option<Stored>, sqlx::Error> {
    let query = "select * from metadata where role = $1 and version = $2";
    sqlx::query_as(query).bind(role).bind(version).fetch_optional(catalog).await
}

/// The newest version of every role, by name.
pub async fn all(catalog: impl SqliteExecutor<'_>) -> Result<Vec<Stored>, sqlx::Error> {
    let query = "select m.* from metadata m join
                 (select role, max(version) as version from metadata group by role) newest
                 on m.role = newest.role and m.version = newest.version order by m.role";
    sqlx::query_as(query).fetch_all(catalog).await
}

/// Keeps a new version of a role; it must be above the newest. What nobody asks for any more goes: timestamps, which are
/// served without a number, and versions long replaced. Roots stay, for every device walks through all of them.
pub async fn put(
    catalog: &mut SqliteConnection,
    role: &str,
    version: u64,
    bytes: &[u8],
    expires: Micros,
    now: Micros,
) -> Result<(), PublishError> {
    let last = newest(&mut *catalog, role).await?.map_or(0, |stored| stored.version as u64);
    if version <= last || i64::try_from(version).is_err() {
        let role = role.to_owned();
        return Err(PublishError::Version { role, expected: last + 1, exactly: false, found: version });
    }
    sqlx::query("insert into metadata (role, version, bytes, sha256, expires, stored) values ($1, $2, $3, $4, $5, $6)")
        .bind(role)
        .bind(version as i64)
        .bind(bytes)
        .bind(tributary_release::digest(bytes).to_string())
        .bind(expires.0)
        .bind(now.0)
        .execute(&mut *catalog)
        .await?;
    let kept = match role {
        "root" => return Ok(()),
        "timestamp" => 0,
        _ => KEPT,
    };
    let query = "delete from metadata where role = $1 and version not in
                 (select version from metadata where role = $1 order by version desc limit $2)";
    sqlx::query(query).bind(role).bind(kept + 1).execute(catalog).await?;
    Ok(())
}

impl Stored {
    /// The hash of the bytes.
    pub fn hash(&self) -> Sha256 {
        tributary_release::digest(&self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    #[tokio::test]
    async fn versions_only_grow_never_change_and_old_ones_go_except_roots() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&folder.path().join("catalog.db")).await.unwrap();
        let mut write = catalog.write().await.unwrap();
        for (role, kept) in [("root", 70), ("timestamp", 1), ("models/card-fraud", KEPT + 1)] {
            for version in 1..=70 {
                put(&mut write, role, version, format!("{role} {version}").as_bytes(), Micros(9), Micros(1))
                    .await
                    .unwrap();
            }
            let refused = put(&mut write, role, 70, b"other", Micros(9), Micros(1)).await.unwrap_err();
            assert_eq!(refused.to_string(), format!("{role} has version 70, expected 71 or higher"));
            let newest = newest(&mut *write, role).await.unwrap().unwrap();
            assert_eq!((newest.version, newest.bytes.as_slice()), (70, format!("{role} 70").as_bytes()));
            assert_eq!(newest.sha256, newest.hash().to_string());
            let count: i64 = sqlx::query_scalar("select count(*) from metadata where role = $1")
                .bind(role)
                .fetch_one(&mut *write)
                .await
                .unwrap();
            assert_eq!(count, kept, "{role}");
        }
        assert!(version(&mut *write, "root", 1).await.unwrap().is_some());
        assert_eq!(all(&mut *write).await.unwrap().len(), 3);
        let changed = sqlx::query("update metadata set expires = 0").execute(&mut *write).await.unwrap_err();
        assert!(changed.to_string().contains("never changed"), "{changed}");
        let below =
            "insert into metadata (role, version, bytes, sha256, expires, stored) values ('root', 3, x'', '', 0, 0)";
        let below = sqlx::query(below).execute(&mut *write).await.unwrap_err();
        assert!(below.to_string().contains("only grow"), "{below}");
    }
}
