//! A catalog whose tables can all be read is written anew; the old one is kept beside it.
//!
//! Most damage lies in an index or in free pages, which writing anew leaves behind. What cannot be read whole is not
//! mended: a catalog with rows missing would be worse than a backup.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tributary_process::checkup::host::{self, Locked};
use tributary_process::checkup::{Mend, aside, rename_new};
use tributary_process::{disk, durable};

/// The files of one database.
const PARTS: [&str; 3] = ["", "-wal", "-shm"];

/// Offers to write the catalog anew.
pub(super) fn catalog(path: &Path, lock: &Path, at: &str) -> Mend {
    let (path, lock, old) = (path.to_owned(), lock.to_owned(), aside(path, at));
    let name = old.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let what = format!(
        "write {} anew from a copy, if every table of it can be read; the old one is kept as {name}",
        path.display()
    );
    Mend::new(what, move || {
        // Mends are carried out outside of any runtime of their own.
        let work = move || anew(&path, &lock, &old).map_err(|error| format!("{error:#}; nothing was changed"));
        std::thread::spawn(work).join().unwrap_or_else(|_| Err("it ended in a panic".to_owned()))
    })
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn anew(path: &Path, lock: &Path, old: &Path) -> anyhow::Result<String> {
    let _held = match host::take_lock(lock) {
        Ok(Locked::Free(lock)) => Some(lock),
        Ok(Locked::Held(holder)) => bail!("{holder} works with it"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).context("could not take the hub's lock"),
    };
    let scratch = with_ending(path, ".mending");
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir(&scratch).with_context(|| format!("could not make {}", scratch.display()))?;
    host::set_mode(&scratch, 0o700)?;
    let done = write_anew(path, &scratch).and_then(|rows| {
        // A log belongs to one file: it goes first, and a start in between finds the broken catalog without it, and
        // refuses it just the same.
        for part in PARTS.into_iter().skip(1).filter(|part| with_ending(path, part).exists()) {
            rename_new(&with_ending(path, part), &with_ending(old, part))?;
        }
        // A second name for the old one, then the new one takes the first in one step: there is always a catalog.
        fs::hard_link(path, old).with_context(|| format!("could not keep {}", old.display()))?;
        fs::rename(scratch.join("new.db"), path)?;
        durable::sync_folder(disk::folder_of(path))?;
        Ok(rows)
    });
    let _ = fs::remove_dir_all(&scratch);
    let rows = done?;
    Ok(format!("{rows} rows were read and written anew; the old one is kept as {}", old.display()))
}

/// Everything that can be read of a copy, in a new file that SQLite finds whole; how many rows.
fn write_anew(path: &Path, scratch: &Path) -> anyhow::Result<i64> {
    let (copy, new) = (scratch.join("copy.db"), scratch.join("new.db"));
    for part in PARTS.into_iter().filter(|part| with_ending(path, part).exists()) {
        fs::copy(with_ending(path, part), with_ending(&copy, part)).context("could not copy the catalog")?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rows = runtime.block_on(async {
        let mut from = SqliteConnectOptions::new().filename(&copy).connect().await?;
        sqlx::query("vacuum into $1").bind(new.display().to_string()).execute(&mut from).await?;
        let before = rows(&mut from).await?;
        drop(from.close().await);
        let mut to = SqliteConnectOptions::new().filename(&new).connect().await?;
        let found: Vec<String> = sqlx::query_scalar("pragma integrity_check(3)").fetch_all(&mut to).await?;
        let after = rows(&mut to).await?;
        to.close().await?;
        anyhow::Ok((found, before, after))
    });
    let (found, before, after) = rows.context("not every table can be read")?;
    ensure!(found == ["ok"], "what can be read is not whole: {}", found.join("; "));
    ensure!(before == after, "{before} rows were read, {after} written");
    host::set_mode(&new, 0o600)?;
    fs::File::open(&new)?.sync_all()?;
    Ok(after)
}

/// Counts all rows by reading the tables themselves, not an index of theirs.
async fn rows(connection: &mut sqlx::SqliteConnection) -> anyhow::Result<i64> {
    let query = "select name from sqlite_master where type = 'table' and name not like 'sqlite_%'";
    let tables: Vec<String> = sqlx::query_scalar(query).fetch_all(&mut *connection).await?;
    let mut all = 0;
    for table in tables {
        let query = format!("select count(*) from \"{}\" not indexed", table.replace('"', "\"\""));
        let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(&mut *connection).await?;
        all += count;
    }
    Ok(all)
}
