//! The rows of patches.

use sqlx::{SqliteConnection, SqliteExecutor};
use tributary_release::delta::{PatchEntry, PatchIndex};
use tributary_wire::Sha256;

use super::plan::Job;

/// What came of a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum State {
    /// Its file is there.
    Made,
    /// It was not worth it.
    Skipped,
    /// It could not be made; it is tried again.
    Failed,
}

impl State {
    /// As in the catalog.
    pub fn name(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }
}

/// A patch as the catalog keeps it.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Stored {
    /// Hash of the package it leads to.
    pub target: String,
    /// Hash of the package it starts from; empty for none.
    pub base: String,
    /// Name of its format.
    pub format: String,
    /// What came of it.
    pub state: State,
    /// Length in bytes.
    pub length: i64,
    /// Hash of its file.
    pub sha256: String,
    /// Why there is no file.
    pub reason: String,
    /// What making it took.
    pub seconds: f64,
    /// When, UTC microseconds.
    pub made: i64,
}

impl Stored {
    /// Whether this is what the job makes.
    pub(super) fn is(&self, job: &Job) -> bool {
        let base = job.from.map_or(String::new(), |base| base.to_string());
        self.target == job.to.to_string() && self.base == base
    }

    /// As the index offers it; nothing where there is no file.
    pub(super) fn entry(&self) -> Option<PatchEntry> {
        let from = if self.base.is_empty() { None } else { Some(self.base.parse().ok()?) };
        let entry = PatchEntry {
            from,
            format: self.format.clone(),
            length: self.length as u64,
            sha256: self.sha256.parse().ok()?,
        };
        (self.state == State::Made).then_some(entry)
    }
}

/// All rows.
pub(super) async fn all(catalog: impl SqliteExecutor<'_>) -> Result<Vec<Stored>, sqlx::Error> {
    sqlx::query_as("select * from patches order by target, base").fetch_all(catalog).await
}

/// What is known of the ways to a package.
pub async fn of_target(catalog: impl SqliteExecutor<'_>, target: &Sha256) -> Result<Vec<Stored>, sqlx::Error> {
    let query = "select * from patches where target = $1 order by base";
    sqlx::query_as(query).bind(target.to_string()).fetch_all(catalog).await
}

/// How many patches there are, and their bytes.
pub async fn total(catalog: impl SqliteExecutor<'_>) -> Result<(i64, i64), sqlx::Error> {
    let query = "select count(*), coalesce(sum(length), 0) from patches where state = 'made'";
    sqlx::query_as(query).fetch_one(catalog).await
}

/// The index of the ways to a package.
pub(super) fn index(rows: &[Stored]) -> PatchIndex {
    PatchIndex { patches: rows.iter().filter_map(Stored::entry).collect() }
}

/// Keeps what came of a patch.
pub(super) async fn put(catalog: &mut SqliteConnection, stored: &Stored) -> Result<(), sqlx::Error> {
    let query = "insert into patches (target, base, format, state, length, sha256, reason, seconds, made)
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
                 on conflict (target, base) do update set format = excluded.format, state = excluded.state,
                 length = excluded.length, sha256 = excluded.sha256, reason = excluded.reason, seconds = excluded.seconds, made = excluded.made";
    let query = sqlx::query(query).bind(&stored.target).bind(&stored.base).bind(&stored.format).bind(stored.state);
    let query = query.bind(stored.length).bind(&stored.sha256).bind(&stored.reason).bind(stored.seconds);
    query.bind(stored.made).execute(catalog).await?;
    Ok(())
}

/// Forgets a patch.
pub(super) async fn remove(catalog: &mut SqliteConnection, stored: &Stored) -> Result<(), sqlx::Error> {
    let query = "delete from patches where target = $1 and base = $2";
    sqlx::query(query).bind(&stored.target).bind(&stored.base).execute(catalog).await?;
    Ok(())
}
