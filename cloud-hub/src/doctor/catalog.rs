//! The catalog: whether SQLite finds it whole, and whether this program reads its form.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{Row as _, SqlitePool};
use tributary_process::checkup::{Finding, bytes, count};

use super::{Subject, mend, words};
use crate::audit::verify;
use crate::catalog::MIGRATIONS;

const SECTION: &str = "Catalog";
const FILE: &str = "catalog.db";
/// A log of this size was not folded into the file for long: a reader that never ends keeps it.
const LARGE_LOG: u64 = 256 << 20;
/// Problems that SQLite lists at most.
const PROBLEMS: u32 = 20;

/// What was found, and the catalog, opened for reading alone, if that can be done.
pub(super) async fn check(subject: &Subject) -> (Vec<Finding>, Option<SqlitePool>) {
    let path = subject.path(FILE);
    if !path.exists() {
        let lake = subject.path("lake").read_dir().is_ok_and(|mut entries| entries.next().is_some());
        return (vec![absent(lake)], None);
    }
    let size = std::fs::metadata(&path).map_or(0, |about| about.len());
    let pool = match open(&path, subject.running.is_some()).await {
        Ok(pool) => pool,
        Err(error) => return (vec![broken(subject, &path, size, vec![words(&error)])], None),
    };
    let problems = match integrity(&pool).await {
        Ok(problems) => problems,
        Err(error) => vec![words(&error)],
    };
    if !problems.is_empty() {
        return (vec![broken(subject, &path, size, problems)], None);
    }
    let mut findings = vec![Finding::ok(SECTION, FILE, format!("{}, whole", bytes(size)))];
    findings.extend(log(&path));
    match migrations(&pool).await {
        Ok((finding, true)) => findings.push(finding),
        Ok((finding, false)) => {
            findings.push(finding);
            pool.close().await;
            return (findings, None);
        }
        Err(error) => findings.push(Finding::fail(SECTION, "form", words(&error))),
    }
    findings.extend(audit(&pool).await);
    (findings, Some(pool))
}

fn absent(lake: bool) -> Finding {
    if !lake {
        return Finding::ok(SECTION, FILE, "not there yet: the hub makes it at its first start");
    }
    let found = format!("{FILE} is not there, but the lake holds files");
    Finding::fail(SECTION, FILE, found).advise(
        "restore a backup: cloud-hub restore BACKUP --data NEW --old-data THIS. Without one start the hub (cloud-hub \
         serve): it makes the catalog again from the footers of the lake's files and from the quarantine, and devices say \
         what it cannot know (cloud-hub restore status). Each has to be accepted once (cloud-hub restore accept DEVICE \
         --reason WHY); \
         accounts, lines, releases and the audit log are gone",
    )
}

/// Where no hub works and nothing waits in the log, SQLite is told that nobody changes the file: then it makes no files
/// of its own beside it.
async fn open(path: &Path, running: bool) -> Result<SqlitePool, sqlx::Error> {
    let log = std::fs::metadata(path.with_extension("db-wal")).map_or(0, |about| about.len());
    let options = SqliteConnectOptions::new().filename(path).read_only(true).immutable(!running && log == 0);
    SqlitePoolOptions::new().max_connections(1).connect_with(options).await
}

async fn integrity(pool: &SqlitePool) -> Result<Vec<String>, sqlx::Error> {
    let query = format!("pragma integrity_check({PROBLEMS})");
    let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_all(pool).await?;
    let mut problems: Vec<String> = rows.into_iter().filter(|row| row != "ok").collect();
    for row in sqlx::query("pragma foreign_key_check").fetch_all(pool).await?.iter().take(PROBLEMS as usize) {
        let (table, parent): (String, String) = (row.try_get(0)?, row.try_get(2)?);
        problems.push(format!("a row of {table} speaks of one of {parent} that is not there"));
    }
    Ok(problems)
}

fn broken(subject: &Subject, path: &Path, size: u64, problems: Vec<String>) -> Finding {
    let first = problems.first().cloned().unwrap_or_default();
    let found = format!("{}, {}: {first}", bytes(size), count(problems.len() as u64, "problem", "problems"));
    let finding = Finding::fail(SECTION, FILE, found).with_details(problems.into_iter().skip(1)).advise(
        "look for what broke it (dmesg, the disk's own health). If --repair cannot save every row: restore a backup, \
         and the files of the lake that are newer are found again",
    );
    match subject.running {
        Some(_) => finding
            .advise("stop the hub, then: cloud-hub doctor --repair. If that cannot save every row, restore a backup"),
        None => finding.mended_by(mend::catalog(path, &subject.path("lock"), &subject.at())),
    }
}

fn log(path: &Path) -> Option<Finding> {
    let size = std::fs::metadata(path.with_extension("db-wal")).ok()?.len();
    (size > LARGE_LOG).then(|| {
        let found = format!("{} wait in the write-ahead log", bytes(size));
        Finding::warn(SECTION, "log", found)
            .advise("restart the hub, which folds it into the catalog; is some other program reading it?")
    })
}

/// Whether this program reads the catalog's form; `false`: it does not, so nothing else is read.
async fn migrations(pool: &SqlitePool) -> Result<(Finding, bool), sqlx::Error> {
    let rows: Vec<(i64, Vec<u8>, bool)> =
        sqlx::query_as("select version, checksum, success from _sqlx_migrations order by version")
            .fetch_all(pool)
            .await?;
    let known: Vec<(i64, &[u8])> = MIGRATIONS.iter().map(|known| (known.version, known.checksum.as_ref())).collect();
    Ok(judge_form(&rows, &known))
}

fn judge_form(rows: &[(i64, Vec<u8>, bool)], known: &[(i64, &[u8])]) -> (Finding, bool) {
    let newest = rows.last().map_or(0, |(version, ..)| *version);
    if let Some((version, ..)) = rows.iter().find(|(_, _, success)| !success) {
        let found = format!("migration {version} was begun and not finished");
        return (Finding::fail(SECTION, "form", found).advise("restore the backup from before the upgrade"), false);
    }
    if let Some((version, ..)) = rows.iter().find(|(version, ..)| known.iter().all(|(other, _)| other != version)) {
        let found = format!("it was written by a newer hub: migration {version} is not known here");
        return (
            Finding::fail(SECTION, "form", found)
                .advise("run that version, or restore a backup from before the upgrade"),
            false,
        );
    }
    let changed =
        rows.iter().find(|(version, sum, _)| known.iter().any(|(other, known)| other == version && sum != known));
    if let Some((version, ..)) = changed {
        let found = format!("migration {version} was another one when it was applied");
        return (
            Finding::fail(SECTION, "form", found)
                .advise("this program was built from a changed source; use a released one"),
            false,
        );
    }
    let missing = known.len().saturating_sub(rows.len()) as u64;
    if missing > 0 {
        let words = count(missing, "migration waits", "migrations wait");
        return (Finding::ok(SECTION, "form", format!("version {newest}; {words} for the next start")), false);
    }
    (Finding::ok(SECTION, "form", format!("version {newest}, as this program writes it")), true)
}

async fn audit(pool: &SqlitePool) -> Option<Finding> {
    let mut connection = pool.acquire().await.ok()?;
    Some(match verify::stored(&mut connection, None).await {
        Ok(verdict) if verdict.whole => {
            let entries = count(verdict.last, "entry", "entries");
            Finding::ok(SECTION, "audit log", format!("{entries}, whole"))
        }
        Ok(verdict) => {
            let problem = verdict.finding.map_or_else(String::new, |finding| finding.problem);
            Finding::fail(SECTION, "audit log", format!("not whole: {problem}")).advise(
                "somebody or something changed the catalog: find out who, and keep a copy of the data folder as it is",
            )
        }
        Err(error) => Finding::fail(SECTION, "audit log", words(&error)),
    })
}

#[cfg(test)]
mod tests {
    use tributary_process::checkup::Mark;

    use super::*;

    #[test]
    fn the_form_is_known_older_newer_or_another() {
        let known: [(i64, &[u8]); 2] = [(1, &[1]), (2, &[2])];
        let row = |version: i64, sum: u8, success| (version, vec![sum], success);
        let of = |rows: &[(i64, Vec<u8>, bool)]| {
            let (finding, readable) = judge_form(rows, &known);
            (finding.mark(), readable)
        };
        assert_eq!(of(&[row(1, 1, true), row(2, 2, true)]), (Mark::Ok, true));
        assert_eq!(of(&[row(1, 1, true)]), (Mark::Ok, false));
        assert_eq!(of(&[row(1, 1, true), row(2, 2, true), row(3, 3, true)]), (Mark::Fail, false));
        assert_eq!(of(&[row(1, 9, true), row(2, 2, true)]), (Mark::Fail, false));
        assert_eq!(of(&[row(1, 1, true), row(2, 2, false)]), (Mark::Fail, false));
    }
}
