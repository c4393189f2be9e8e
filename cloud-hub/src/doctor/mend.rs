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
        // The journal of the copy is folded in, as a start would do.
        SqliteConnectOptions::new().filename(&copy).connect().await?.close().await?;
        let options = SqliteConnectOptions::new().filename(&new).create_if_missing(true).foreign_keys(false);
        let mut to = options.connect().await?;
        sqlx::query("attach database $1 as old").bind(copy.display().to_string()).execute(&mut to).await?;
        let written = copy_tables(&mut to).await?;
        sqlx::query("detach database old").execute(&mut to).await?;
        let mut found: Vec<String> = sqlx::query_scalar("pragma integrity_check(3)").fetch_all(&mut to).await?;
        if !sqlx::query("pragma foreign_key_check").fetch_all(&mut to).await?.is_empty() {
            found.push("rows speak of others that are not there".to_owned());
        }
        to.close().await?;
        anyhow::Ok((found, written))
    });
    let (found, written) = rows.context("not every table can be read")?;
    ensure!(found == ["ok"], "what can be read is not whole: {}", found.join("; "));
    host::set_mode(&new, 0o600)?;
    fs::File::open(&new)?.sync_all()?;
    Ok(written)
}

/// Makes every table of `old` again from its rows, read from the table itself; then indexes, views and triggers. How many
/// rows there are.
async fn copy_tables(to: &mut sqlx::SqliteConnection) -> anyhow::Result<i64> {
    let query = "select name, sql from old.sqlite_master where type = 'table' and name not like 'sqlite_%'";
    let tables: Vec<(String, String)> = sqlx::query_as(query).fetch_all(&mut *to).await?;
    let mut all = 0;
    for (name, made_by) in tables {
        sqlx::query(sqlx::AssertSqlSafe(made_by)).execute(&mut *to).await?;
        let name = name.replace('"', "\"\"");
        // In the order of rows: without an order SQLite would copy the pages of indexes as they are.
        let rows = format!("insert into main.\"{name}\" select * from old.\"{name}\" not indexed order by rowid");
        all += sqlx::query(sqlx::AssertSqlSafe(rows)).execute(&mut *to).await?.rows_affected() as i64;
    }
    let query = "select sql from old.sqlite_master where type <> 'table' and sql is not null order by type";
    let others: Vec<String> = sqlx::query_scalar(query).fetch_all(&mut *to).await?;
    for made_by in others {
        sqlx::query(sqlx::AssertSqlSafe(made_by)).execute(&mut *to).await?;
    }
    Ok(all)
}
