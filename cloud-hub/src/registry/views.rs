//! Feature views by name and version. The text is what counts; the catalog only keeps and finds it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::SqliteConnection;
use tributary_features::View;
use tributary_wire::Micros;
use utoipa::ToSchema;

use super::RegistryError;
use crate::audit::{self, Change};

/// A feature view as the catalog keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::FromRow)]
pub struct ViewRecord {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: i64,
    /// Hash of its text.
    pub sha256: String,
    /// Its text, TOML.
    pub source: String,
    /// When it came, UTC microseconds.
    pub created: i64,
}

impl ViewRecord {
    /// The view itself.
    pub fn view(&self) -> Result<View, RegistryError> {
        Ok(View::from_toml(&self.source)?)
    }
}

/// Checks and keeps a view. The same text again changes nothing; the answer says whether it was new.
pub async fn add(
    catalog: &mut SqliteConnection,
    source: &str,
    now: Micros,
) -> Result<(ViewRecord, bool), RegistryError> {
    let view = View::from_toml(source)?;
    let sha256 = tributary_release::digest(source.as_bytes()).to_string();
    if let Some(known) = find(catalog, view.name(), Some(view.version())).await? {
        return match known.sha256 == sha256 {
            true => Ok((known, false)),
            false => Err(RegistryError::ViewExists { name: view.name().to_owned(), version: view.version() }),
        };
    }
    let record = ViewRecord {
        name: view.name().to_owned(),
        version: view.version().into(),
        sha256,
        source: source.to_owned(),
        created: now.0,
    };
    sqlx::query("insert into feature_views (name, version, sha256, source, created) values ($1, $2, $3, $4, $5)")
        .bind(&record.name)
        .bind(record.version)
        .bind(&record.sha256)
        .bind(&record.source)
        .bind(record.created)
        .execute(&mut *catalog)
        .await?;
    let subject = format!("{}/{}", record.name, record.version);
    let change =
        Change { action: "view.add", subject: &subject, from: Value::Null, to: json!({"sha256": record.sha256}) };
    audit::record(catalog, change, now).await?;
    Ok((record, true))
}

/// A view by name; its newest version unless one is given.
pub async fn find(
    catalog: &mut SqliteConnection,
    name: &str,
    version: Option<u32>,
) -> Result<Option<ViewRecord>, RegistryError> {
    let query = "select name, version, sha256, source, created from feature_views
                 where name = $1 and ($2 is null or version = $2) order by version desc limit 1";
    Ok(sqlx::query_as(query).bind(name).bind(version.map(i64::from)).fetch_optional(catalog).await?)
}

/// As [`find`], but its absence is an error.
pub async fn get(
    catalog: &mut SqliteConnection,
    name: &str,
    version: Option<u32>,
) -> Result<ViewRecord, RegistryError> {
    find(catalog, name, version).await?.ok_or_else(|| {
        RegistryError::NoView(match version {
            Some(version) => format!("{name} version {version}"),
            None => name.to_owned(),
        })
    })
}

/// All views, by name and version.
pub async fn list(catalog: &mut SqliteConnection, after: &str, limit: u32) -> Result<Vec<ViewRecord>, RegistryError> {
    let query = "select name, version, sha256, source, created from feature_views
                 where name || '@' || substr('0000000000' || version, -10) > $1
                 order by name || '@' || substr('0000000000' || version, -10) limit $2";
    Ok(sqlx::query_as(query).bind(after).bind(i64::from(limit)).fetch_all(catalog).await?)
}

/// Where a view stands in [`list`].
pub fn list_key(record: &ViewRecord) -> String {
    format!("{}@{:010}", record.name, record.version)
}
