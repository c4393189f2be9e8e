//! A backup becomes the data folder of a hub again.
//!
//! Everything is checked before anything is written. While the work lasts a file `restoring` lies in the folder, and no
//! hub starts on it: a folder that is half restored never counts. What the first start does is in [`super::taken_in`]
//! and [`super::standing`].

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;
use sqlx::SqliteConnection;
use tributary_process::disk::{RealDisk, create_folder_durably};
use tributary_process::durable;
use tributary_wire::Micros;

use super::manifest::{CATALOG, LAKE, LakeFile, Manifest, Member, SETTINGS};
use super::revocations::{self, Revocation};
use super::trees;
use super::{BackupError, Tell, archive};
use crate::audit::{self, Change};
use crate::catalog::{self, Catalog, alerts};
use crate::rollout;

/// Lies in a folder that is being restored.
const UNFINISHED: &str = "restoring";
/// The settings that the lost hub ran with, for people: where they lie is theirs to choose.
const OLD_SETTINGS: &str = "settings-of-the-backup.toml";

/// What is to be restored, and from what.
#[derive(Clone)]
pub struct Wish {
    /// The backup.
    pub from: PathBuf,
    /// The data folder to make; empty, or not there.
    pub data: PathBuf,
    /// A lake that still has files: of the lost hub, or one that was copied with the backup.
    pub lake: Option<PathBuf>,
    /// What is left of the data folder of the lost hub: lake, quarantined messages, packages, datasets.
    pub old_data: Option<PathBuf>,
    /// Go on although files of the lake are lost.
    pub without_lake_files: bool,
    /// API tokens that were good when the backup was made stay good.
    pub keep_tokens: bool,
    /// Revocations since the backup: an export of the audit log, or ids of devices and tokens, one a line.
    pub revocations: Option<PathBuf>,
    /// Hears how far the work is.
    pub tell: Tell,
}

/// What was done.
#[derive(Debug, Clone, Serialize)]
pub struct Restored {
    /// The data folder.
    pub data: PathBuf,
    /// When the backup was taken, UTC microseconds.
    pub made: i64,
    /// Files that were unpacked.
    pub members: usize,
    /// Files of the lake that are there now.
    pub lake_files: u64,
    /// Of those, how many the backup does not know: they are taken in at the first start.
    pub newer_lake_files: u64,
    /// Files that the backup names and that are lost,
    pub lost_lake_files: u64,
    /// with so many rows.
    pub lost_rows: u64,
    /// Revocations that were made again.
    pub revoked: u64,
    /// API tokens that count no more.
    pub tokens_ended: u64,
    /// Rollouts that were paused.
    pub rollouts_paused: u64,
    /// Files that the hub needs and that no backup has: they lie outside the data folder.
    pub outside: Vec<String>,
}

/// Refuses a folder whose restoring was broken off.
pub fn check_finished(data: &Path) -> anyhow::Result<()> {
    let mark = data.join(UNFINISHED);
    anyhow::ensure!(
        !mark.exists(),
        "restoring {} was broken off; empty the folder and run `cloud-hub restore` again",
        data.display()
    );
    Ok(())
}

/// Restores. The folder is whole when this returns; until then no hub starts on it.
pub async fn restore(wish: Wish) -> Result<Restored, BackupError> {
    let (wish, prepared) = tokio::task::spawn_blocking(move || {
        let prepared = prepare(&wish);
        (wish, prepared)
    })
    .await
    .map_err(|_| BackupError::Stopped)?;
    let Prepared { manifest, lost, lake_files, newer_lake_files, revocations, lock: _lock } = prepared?;
    let path = wish.data.join(CATALOG);
    let failed = |verb| BackupError::catalog(verb, &path);
    let catalog = Catalog::open(&path).await.map_err(failed("open and migrate"))?;
    let mut write = catalog.write().await.map_err(failed("write to"))?;
    let done = mark(&mut write, &wish, &manifest, &lost, &revocations).await.map_err(failed("write to"))?;
    write.commit().await.map_err(failed("write to"))?;
    catalog.close().await;
    let file = File::open(&path).and_then(|file| file.sync_all());
    file.map_err(BackupError::file("sync", &path))?;
    let mark = wish.data.join(UNFINISHED);
    fs::remove_file(&mark).map_err(BackupError::file("remove", &mark))?;
    durable::sync_folder(&wish.data).map_err(BackupError::file("sync", &wish.data))?;
    Ok(Restored {
        made: manifest.made.0,
        members: manifest.members.len(),
        lake_files,
        newer_lake_files,
        lost_lake_files: lost.len() as u64,
        lost_rows: lost.iter().map(|file| file.rows).sum(),
        outside: manifest.outside,
        data: wish.data,
        ..done
    })
}

struct Prepared {
    manifest: Manifest,
    lost: Vec<LakeFile>,
    lake_files: u64,
    newer_lake_files: u64,
    revocations: Vec<Revocation>,
    lock: File,
}

/// All that happens to files: check, then unpack, then bring together what is left of the old hub.
fn prepare(wish: &Wish) -> Result<Prepared, BackupError> {
    let tell = &wish.tell;
    check_empty(&wish.data)?;
    let mut named: Vec<u8> = Vec::new();
    let manifest = archive::read(&wish.from, &mut |member, from| {
        if member.path == LAKE {
            from.read_to_end(&mut named).map_err(BackupError::file("read", &wish.from))?;
        }
        Ok(())
    })?;
    let known = catalog::newest_migration();
    if manifest.migration > known {
        let (path, found) = (wish.from.clone(), manifest.migration);
        return Err(BackupError::Newer { path, what: "catalog", found, known });
    }
    tell(&format!("the backup of {} is whole: {} files", manifest.made, manifest.members.len()));
    let named = lake_files(&wish.from, &named)?;
    let revocations = match &wish.revocations {
        Some(path) => revocations::read(path, manifest.audit)?,
        None => Vec::new(),
    };
    let lake = wish.lake.clone().or_else(|| Some(wish.old_data.as_ref()?.join("lake")));
    let there = match &lake {
        Some(lake) if !lake.is_dir() => {
            let problem = "is no folder; expected the lake of the lost hub, or the one beside the backup".to_owned();
            return Err(BackupError::InTheWay { path: lake.clone(), problem });
        }
        Some(lake) => trees::files(lake)?,
        None => Vec::new(),
    };
    let lost = lost(&named, &there);
    if !lost.is_empty() && !wish.without_lake_files {
        let beside = tributary_process::disk::folder_of(&wish.from).join("lake");
        let hint = if manifest.lake.copied { format!(" (perhaps {})", beside.display()) } else { String::new() };
        let (files, rows) = (lost.len(), lost.iter().map(|file| file.rows).sum::<u64>());
        let problem = format!(
            "does not have {files} files of the lake with {rows} rows, {} first: name the lake that still has them \
             with --lake DIR{hint}, or give them up with --without-lake-files",
            lost[0].path
        );
        return Err(BackupError::InTheWay { path: lake.unwrap_or_else(|| "the backup itself".into()), problem });
    }

    let lock = claim(&wish.data, &manifest)?;
    unpack(wish, &manifest)?;
    let before: BTreeSet<&str> = named.iter().map(|file| file.path.as_str()).collect();
    let newer = there.iter().filter(|(path, _)| !before.contains(path.as_str())).count() as u64;
    if let Some(lake) = &lake {
        bring(wish, lake, "lake", &there)?;
    }
    if let Some(old) = &wish.old_data {
        for part in ["quarantine", "snapshots", "datasets", "packages"] {
            let mut found = trees::files(&old.join(part))?;
            found.retain(|(path, _)| part != "packages" || is_package(&old.join(part).join(path), path));
            bring(wish, &old.join(part), part, &found)?;
        }
    }
    Ok(Prepared { manifest, lost, lake_files: there.len() as u64, newer_lake_files: newer, revocations, lock })
}

pub(super) fn lake_files(backup: &Path, text: &[u8]) -> Result<Vec<LakeFile>, BackupError> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let wrong = |error: serde_json::Error| BackupError::Member {
        path: backup.to_owned(),
        member: LAKE.to_owned(),
        problem: error.to_string(),
    };
    lines.map(|line| serde_json::from_slice(line).map_err(wrong)).collect()
}

/// Files that the catalog names and that are not there, or not with that length.
pub(super) fn lost(named: &[LakeFile], there: &[(String, u64)]) -> Vec<LakeFile> {
    let there: BTreeSet<(&str, u64)> = there.iter().map(|(path, bytes)| (path.as_str(), *bytes)).collect();
    named.iter().filter(|file| !there.contains(&(file.path.as_str(), file.bytes))).cloned().collect()
}

/// A package is what its name says, or nothing.
fn is_package(path: &Path, name: &str) -> bool {
    let expected = name.strip_suffix(".tpk").and_then(|name| name.parse::<tributary_wire::Sha256>().ok());
    let found = File::open(path).and_then(archive::digest);
    matches!((expected, found), (Some(expected), Ok((_, found))) if expected == found)
}

/// Refuses a folder in which anything is; one that is not there yet is empty.
fn check_empty(data: &Path) -> Result<(), BackupError> {
    let found = match fs::read_dir(data) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(BackupError::file("list", data))?,
    };
    // A file system of its own has this folder from the beginning.
    let names = found.filter_map(Result::ok).map(|entry| entry.file_name()).filter(|name| name != "lost+found");
    if let Some(name) = names.into_iter().next() {
        let problem = format!("is not empty (it has {}); a backup is restored into an empty folder", name.display());
        return Err(BackupError::InTheWay { path: data.to_owned(), problem });
    }
    Ok(())
}

/// Takes an empty folder for a hub that is to be; nobody else may be at work in it.
fn claim(data: &Path, manifest: &Manifest) -> Result<File, BackupError> {
    create_folder_durably(&RealDisk, data).map_err(BackupError::file("make", data))?;
    check_empty(data)?;
    trees::room(data, manifest.bytes() + (1 << 20))?;
    let mark = data.join(UNFINISHED);
    durable::write(&mark, b"cloud-hub restore has not finished here\n").map_err(BackupError::file("write", &mark))?;
    let path = data.join("lock");
    let lock = File::create(&path).map_err(BackupError::file("make", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(_) => {
            Err(BackupError::InTheWay { path: data.to_owned(), problem: "is in use by another program".to_owned() })
        }
    }
}

/// Whether everybody may read it: certificates and packages are given to whoever asks.
fn is_public(path: &str) -> bool {
    path.ends_with(".pem") || path.starts_with("packages/")
}

fn unpack(wish: &Wish, manifest: &Manifest) -> Result<(), BackupError> {
    let mut folders = BTreeSet::new();
    let all = manifest.members.len();
    let mut done = 0;
    archive::read(&wish.from, &mut |member, from| {
        done += 1;
        if done % 1_000 == 0 {
            (wish.tell)(&format!("{done} of {all} files are unpacked"));
        }
        let Some(path) = place_of(&wish.data, member, wish.keep_tokens) else { return Ok(()) };
        let folder = path.parent().unwrap_or(&wish.data);
        fs::create_dir_all(folder).map_err(BackupError::file("make", folder))?;
        folders.insert(folder.to_owned());
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, if is_public(&member.path) { 0o644 } else { 0o600 });
        let mut file = options.open(&path).map_err(BackupError::file("make", &path))?;
        std::io::copy(from, &mut file).map_err(BackupError::file("write", &path))?;
        file.flush().and_then(|()| file.sync_all()).map_err(BackupError::file("write", &path))
    })?;
    trees::sync(&wish.data, &folders)
}

/// Where a member goes; the list of the lake's files is of no more use, and neither is a token that will not count.
fn place_of(data: &Path, member: &Member, keep_tokens: bool) -> Option<PathBuf> {
    match member.path.as_str() {
        LAKE => None,
        SETTINGS => Some(data.join(OLD_SETTINGS)),
        "keys/admin.token" if !keep_tokens => None,
        path => Some(data.join(path)),
    }
}

fn bring(wish: &Wish, from: &Path, part: &str, found: &[(String, u64)]) -> Result<(), BackupError> {
    if found.is_empty() {
        return Ok(());
    }
    let to = wish.data.join(part);
    fs::create_dir_all(&to).map_err(BackupError::file("make", &to))?;
    if !trees::one_system(from, &to) {
        trees::room(&to, found.iter().map(|(_, bytes)| bytes).sum::<u64>() + (1 << 20))?;
    }
    let placed = trees::place(from, &to, found, |number| {
        if number > 0 && number % 1_000 == 0 {
            (wish.tell)(&format!("{part}: {number} of {} files are there", found.len()));
        }
        Ok(())
    })?;
    durable::sync_folder(&wish.data).map_err(BackupError::file("sync", &wish.data))?;
    (wish.tell)(&format!("{part}: {} files linked, {} copied", placed.linked, placed.copied));
    Ok(())
}

/// Everything that makes the catalog that of a restored hub, in one transaction.
async fn mark(
    write: &mut SqliteConnection,
    wish: &Wish,
    manifest: &Manifest,
    lost: &[LakeFile],
    revocations: &[Revocation],
) -> Result<Restored, sqlx::Error> {
    let now = catalog::now();
    let before = audit::head(&mut *write).await?;
    let epoch: i64 =
        sqlx::query_scalar("select coalesce(max(epoch), 0) + 1 from restores").fetch_one(&mut *write).await?;
    for table in ["restore_reports", "restore_certificates"] {
        sqlx::query(sqlx::AssertSqlSafe(format!("delete from {table}"))).execute(&mut *write).await?;
    }
    let last_rollout: i64 =
        sqlx::query_scalar("select coalesce(max(id), 0) from rollouts").fetch_one(&mut *write).await?;
    sqlx::query(
        "insert into restores (epoch, restored, backup_time, audit_number, audit_hash, last_rollout, state)
         values ($1, $2, $3, $4, $5, $6, 'reading')",
    )
    .bind(epoch)
    .bind(now.0)
    .bind(manifest.made.0)
    .bind(manifest.audit.number as i64)
    .bind(manifest.audit.hash.to_string())
    .bind(last_rollout)
    .execute(&mut *write)
    .await?;
    for file in lost {
        sqlx::query("delete from lake_files where path = $1").bind(&file.path).execute(&mut *write).await?;
    }
    // Patches can be made again, and their files are not here. Answers kept for callers speak of what may be gone.
    for table in ["patches", "idempotency_keys", "sessions"] {
        sqlx::query(sqlx::AssertSqlSafe(format!("delete from {table}"))).execute(&mut *write).await?;
    }
    let tokens_ended = if wish.keep_tokens { 0 } else { end_tokens(write, now).await? };
    let reason = format!("restored from a backup of {}: what was decided after it is not known here", manifest.made);
    let rollouts_paused = rollout::pause_all(write, &reason, now).await?;
    // Whatever decided on the lost catalog may write no more.
    sqlx::query("update rollouts set epoch = epoch + 1000000").execute(&mut *write).await?;
    let revoked = revocations::carry_out(write, revocations, now).await?;
    let to = json!({
        "epoch": epoch, "backup": {"made": manifest.made.0, "program": manifest.program},
        "ended_at": {"number": before.number, "hash": before.hash}, "lost_lake_files": lost.len(),
        "tokens_ended": tokens_ended, "revoked": revoked, "rollouts_paused": rollouts_paused,
    });
    let change = Change { action: "hub.restore", subject: "hub", from: serde_json::Value::Null, to };
    audit::record(write, change, now).await?;
    let next = if revocations.is_empty() {
        "revocations of devices and API tokens after the backup are not known: compare with your notes or an export of \
         the audit log, and make them again (`cloud-hub device revoke`); see `cloud-hub restore status`"
    } else {
        "see `cloud-hub restore status`"
    };
    let detail = json!({
        "problem": format!("this hub was restored from a backup of {}", manifest.made), "next": next,
        "lost_lake_files": lost.len(), "lost_rows": lost.iter().map(|file| file.rows).sum::<u64>(),
    });
    let alert = alerts::Raise { kind: super::RESTORED, subject: "hub", severity: "warning", detail };
    alerts::raise(write, alert, now).await?;
    Ok(Restored {
        data: PathBuf::new(),
        made: 0,
        members: 0,
        lake_files: 0,
        newer_lake_files: 0,
        lost_lake_files: 0,
        lost_rows: 0,
        revoked,
        tokens_ended,
        rollouts_paused,
        outside: Vec::new(),
    })
}

/// API tokens and tokens to enrol with: who holds them may have been shut out after the backup.
async fn end_tokens(write: &mut SqliteConnection, now: Micros) -> Result<u64, sqlx::Error> {
    let mut ended = 0;
    for table in ["api_tokens", "enrolment_tokens"] {
        let query = format!("update {table} set revoked = $1 where revoked is null");
        ended += sqlx::query(sqlx::AssertSqlSafe(query)).bind(now.0).execute(&mut *write).await?.rows_affected();
    }
    let to = json!({"ended": ended, "reason": "restored from a backup"});
    let change = Change { action: "access.end-all", subject: "hub", from: serde_json::Value::Null, to };
    audit::record(write, change, now).await?;
    Ok(ended)
}
