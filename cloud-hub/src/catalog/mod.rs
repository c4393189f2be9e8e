//! The database that knows which files count, who the devices are and what was kept aside.
//!
//! SQLite with a write-ahead log and full syncing: what is committed survives a power cut. There is one writer; readers
//! never wait for it. SQL is kept portable (`$1` placeholders, `on conflict`), so that PostgreSQL can take its place.

pub mod alerts;
pub mod devices;
pub mod files;
pub mod gaps;
pub mod batches;
pub mod quarantine;

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Sqlite, SqliteConnection, Transaction};
use tributary_wire::Micros;

/// How a catalog came to have its form.
pub(crate) static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// Number of the newest migration that this program knows.
pub fn newest_migration() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Readers at once; more would only wait for the disk together.
const READERS: u32 = 4;

/// The catalog. Clones share it.
#[derive(Debug, Clone)]
pub struct Catalog {
    readers: SqlitePool,
    writer: SqlitePool,
}

impl Catalog {
    /// Opens the database file, creating and migrating it as needed.
    pub async fn open(path: &Path) -> Result<Self, sqlx::Error> {
        keep_private(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(std::time::Duration::from_secs(10));
        // A transaction whose commit the disk refused leaves the library's connection in it for ever, long after SQLite
        // has rolled it back: then another connection takes its place.
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
            .connect_with(options.clone())
            .await?;
        MIGRATIONS.run(&writer).await?;
        let readers = SqlitePoolOptions::new().max_connections(READERS).connect_with(options.read_only(true)).await?;
        Ok(Self { readers, writer })
    }

    /// For reading; writing through it fails.
    pub fn reader(&self) -> &SqlitePool {
        &self.readers
    }

    /// A transaction of the one writer. Keep it short: everyone else who writes waits.
    pub async fn write(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        match self.writer.begin_with("begin immediate").await {
            // Opened while the disk refused to be written to, and of no use since: SQLite does not look again.
            Err(error) if is_read_only(&error) => {
                self.writer.acquire().await?.close().await?;
                self.writer.begin_with("begin immediate").await
            }
            begun => begun,
        }
    }

    /// Closes all connections, which also folds the write-ahead log into the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Whether SQLite took the file for one that cannot be written to: SQLITE_READONLY, and what is derived from it.
fn is_read_only(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok());
    code.is_some_and(|code| code & 0xff == 8)
}

/// A connection that only reads a catalog, whoever else works with it. Nothing is created or migrated.
pub async fn open_to_read(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    SqliteConnectOptions::new().filename(path).read_only(true).connect().await
}

/// A connection that also writes, to a catalog as it is: nothing is created or migrated. SQLite lets one process write at
/// a time, also beside a hub that works.
pub async fn open_to_write(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    let options = SqliteConnectOptions::new().filename(path).synchronous(SqliteSynchronous::Full);
    options.foreign_keys(true).busy_timeout(std::time::Duration::from_secs(10)).connect().await
}

/// Only the hub's own user reads the catalog: it holds what devices answered to operators. Files that SQLite makes beside
/// it get the same mode.
fn keep_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
        options.mode(0o600);
        options.open(path)?.set_permissions(PermissionsExt::from_mode(0o600))?;
    }
    Ok(())
}

/// Wall time now.
pub fn now() -> Micros {
    Micros(tributary_process::clock::wall_now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[tokio::test]
    async fn nobody_else_reads_the_catalog_or_its_log() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.db");
        std::fs::write(&path, "").unwrap();
        let catalog = Catalog::open(&path).await.unwrap();
        for name in ["catalog.db", "catalog.db-wal"] {
            let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        catalog.close().await;
    }
}
