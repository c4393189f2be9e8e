//! Model lines: their settings, their story, and the loop that keeps them fresh.

pub mod settings;
pub mod story;
pub mod gate;
pub mod closed_loop;

use serde_json::{Value, json};
use sqlx::SqliteConnection;
use tributary_wire::{LineName, Micros};

pub use settings::{LineSettings, Retrain, StartFrom, TrainingSettings};

use crate::audit::{self, Change};
use crate::registry::{RegistryError, views};

/// A model line.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Its name.
    pub name: LineName,
    /// Name of its feature view.
    pub view_name: String,
    /// Version of its feature view.
    pub view_version: u32,
    /// How it is trained, watched and rolled out.
    pub settings: LineSettings,
    /// Counts its changes.
    pub revision: i64,
    /// When it was made.
    pub created: Micros,
    /// When it was changed last.
    pub changed: Micros,
}

#[derive(sqlx::FromRow)]
struct Row {
    name: String,
    view_name: String,
    view_version: i64,
    settings_json: String,
    revision: i64,
    created: i64,
    changed: i64,
}

impl TryFrom<Row> for Line {
    type Error = RegistryError;
    fn try_from(row: Row) -> Result<Self, RegistryError> {
        Ok(Self {
            name: LineName::new(&row.name).map_err(|error| RegistryError::unreadable("a line", error))?,
            view_name: row.view_name,
            view_version: row.view_version as u32,
            settings: serde_json::from_str(&row.settings_json)
                .map_err(|error| RegistryError::unreadable("settings of a line", error))?,
            revision: row.revision,
            created: Micros(row.created),
            changed: Micros(row.changed),
        })
    }
}

/// What a line should be.
#[derive(Debug, Clone, PartialEq)]
pub struct LineWish {
    /// Its name.
    pub name: LineName,
    /// Name of its feature view.
    pub view_name: String,
    /// Version of its feature view; the newest when left out.
    pub view_version: Option<u32>,
    /// How it is trained, watched and rolled out.
    pub settings: LineSettings,
}

/// Makes or changes a line. `expected` is the revision that the caller saw; 0 means it must not exist yet.
/// `Ok(Err(found))`: it is at another revision.
pub async fn put(
    catalog: &mut SqliteConnection,
    wish: LineWish,
    expected: Option<i64>,
    now: Micros,
) -> Result<Result<Line, i64>, RegistryError> {
    let view = views::get(catalog, &wish.view_name, wish.view_version).await?;
    let known = find(catalog, &wish.name).await?;
    let revision = known.as_ref().map_or(0, |line| line.revision);
    if expected.is_some_and(|expected| expected != revision) {
        return Ok(Err(revision));
    }
    let settings =
        serde_json::to_string(&wish.settings).map_err(|error| RegistryError::unreadable("settings", error))?;
    sqlx::query(
        "insert into lines (name, view_name, view_version, settings_json, revision, created, changed)
         values ($1, $2, $3, $4, 1, $5, $5)
         on conflict (name) do update set view_name = excluded.view_name, view_version = excluded.view_version,
         settings_json = excluded.settings_json, revision = lines.revision + 1, changed = excluded.changed",
    )
    .bind(wish.name.as_str())
    .bind(&view.name)
    .bind(view.version)
    .bind(settings)
    .bind(now.0)
    .execute(&mut *catalog)
    .await?;
    let (kind, what) = if known.is_some() { ("line-changed", "changed") } else { ("line-made", "made") };
    let message = format!("line {what}; feature view {} version {}", view.name, view.version);
    story::tell(catalog, &wish.name, kind, &message, json!({"revision": revision + 1}), now).await?;
    let from = known.map_or(Value::Null, |line| state(&line.view_name, line.view_version.into(), &line.settings));
    let to = state(&view.name, view.version, &wish.settings);
    audit::record(catalog, Change { action: "line.set", subject: wish.name.as_str(), from, to }, now).await?;
    get(catalog, &wish.name).await.map(Ok)
}

/// A line as the audit log shows it.
fn state(view: &str, view_version: i64, settings: &LineSettings) -> Value {
    json!({"view": view, "view_version": view_version, "settings": settings})
}

/// A line, if it is there.
pub async fn find(catalog: &mut SqliteConnection, name: &LineName) -> Result<Option<Line>, RegistryError> {
    let query = "select * from lines where name = $1";
    let row: Option<Row> = sqlx::query_as(query).bind(name.as_str()).fetch_optional(catalog).await?;
    row.map(Line::try_from).transpose()
}

/// As [`find`], but its absence is an error.
pub async fn get(catalog: &mut SqliteConnection, name: &LineName) -> Result<Line, RegistryError> {
    find(catalog, name).await?.ok_or_else(|| RegistryError::NoLine(name.clone()))
}

/// The lines after a name, in the order of their names.
pub async fn list(catalog: &mut SqliteConnection, after: &str, limit: u32) -> Result<Vec<Line>, RegistryError> {
    let query = "select * from lines where name > $1 order by name limit $2";
    let rows: Vec<Row> = sqlx::query_as(query).bind(after).bind(i64::from(limit)).fetch_all(catalog).await?;
    rows.into_iter().map(Line::try_from).collect()
}
