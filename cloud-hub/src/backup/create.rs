//! Making a backup, of a hub that runs or of one that stands still.
//!
//! The catalog comes first: `VACUUM INTO` copies it as it is at one moment, in one read transaction. With a write-ahead
//! log that holds up nobody: writers go on, and what they commit is simply not in the copy. It also gives one closed,
//! compact file, where a copy of the three files of a live database would be none. Then follows what that copy names,
//! and all of it is there: packages and quarantined messages are durable before their rows, and neither ever changes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use sqlx::{Connection as _, SqliteConnection};
use tributary_identity::Certificate;
use tributary_process::durable;
use tributary_wire::{Micros, Sha256};

use super::archive::{self, Source};
use super::manifest::{self, CATALOG, LAKE, LakeCounts, LakeFile, Manifest, Member, SETTINGS};
use super::trees::{self, Placed};
use super::{BackupError, Tell};
use crate::audit;
use crate::catalog::{self, files};

/// What is to be backed up, and where to.
#[derive(Clone)]
pub struct Wish {
    /// Data folder of the hub.
    pub data: PathBuf,
    /// A folder, in which the backup gets a name of its own, or the file to make.
    pub to: PathBuf,
    /// The hub's settings as TOML, where they are known.
    pub settings: Option<String>,
    /// Files that the settings name outside the data folder.
    pub outside: Vec<String>,
    /// Whether the lake's files are copied too, into the folder `lake` beside the backup.
    pub with_lake: bool,
    /// Hears how far the work is.
    pub tell: Tell,
    /// Set to break the work off.
    pub stop: Arc<AtomicBool>,
}

/// A backup that was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// Where it is.
    pub path: PathBuf,
    /// How long it is.
    pub bytes: u64,
    /// What is in it.
    pub manifest: Manifest,
    /// What the catalog names and is not there: each is a fault of the hub, not of the backup.
    pub missing: Vec<String>,
}

impl Made {
    /// As the audit log and people see it.
    pub fn summary(&self) -> Value {
        let Manifest { made, audit, lake, members, .. } = &self.manifest;
        json!({
            "file": self.path, "bytes": self.bytes, "made": made.0, "members": members.len(), "lake": lake,
            "audit": {"number": audit.number, "hash": audit.hash}, "missing": self.missing.len(),
        })
    }
}

/// Name of a backup made then; they sort by time. With milliseconds, so that two that were asked for at once do not meet.
pub fn name(made: Micros) -> String {
    // 2026-01-31T10:20:30.123456Z → 20260131T102030.123Z
    let text: String = made.to_string().chars().filter(|c| !matches!(c, '-' | ':' | 'Z')).collect();
    let (seconds, fraction) = text.split_once('.').unwrap_or((&text, ""));
    format!("{PREFIX}{seconds}.{fraction:0<3.3}Z{SUFFIX}")
}

/// How names of backups begin
pub(super) const PREFIX: &str = "hub-";
/// and end.
pub(super) const SUFFIX: &str = ".backup.tar.zst";

/// A file that is taken away again unless the work comes to its end.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A new file that only its owner reads.
fn private(path: &Path) -> Result<File, BackupError> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(BackupError::file("make", path))
}

/// Makes a backup through a connection that reads the hub's catalog. When it returns, the file is durable.
pub async fn create(reader: &mut SqliteConnection, wish: Wish) -> Result<Made, BackupError> {
    let made = catalog::now();
    let path = target(&wish, made)?;
    let folder = tributary_process::disk::folder_of(&path).to_owned();
    let (scratch, unfinished) = {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (folder.join(format!(".{name}.catalog.tmp")), folder.join(format!(".{name}.tmp")))
    };
    let of_hub = wish.data.join(CATALOG);
    let pages: i64 = sqlx::query_scalar("select page_count * page_size from pragma_page_count, pragma_page_size")
        .fetch_one(&mut *reader)
        .await
        .map_err(BackupError::catalog("read", &of_hub))?;
    let others: u64 = ["keys", "identity", "packages", "quarantine", "snapshots"]
        .into_iter()
        .map(|part| Ok(trees::files(&wish.data.join(part))?.iter().map(|(_, bytes)| bytes).sum::<u64>()))
        .sum::<Result<u64, BackupError>>()?;
    trees::room(&folder, 2 * pages.max(0) as u64 + others + (1 << 20))?;

    let scratch = Scratch(scratch);
    private(&scratch.0)?;
    let copy = "vacuum into $1";
    sqlx::query(copy)
        .bind(scratch.0.display().to_string())
        .execute(reader)
        .await
        .map_err(BackupError::catalog("copy", &of_hub))?;
    let named = Named::read(&scratch.0).await.map_err(BackupError::catalog("read the copy of", &of_hub))?;
    (wish.tell)(&format!("the catalog is copied, up to entry {} of the audit log", named.audit.number));

    let unfinished = Scratch(unfinished);
    tokio::task::spawn_blocking(move || {
        let (members, sources, missing) = gather(&wish, &scratch.0, &named)?;
        let mut lake = named.lake_counts();
        if wish.with_lake {
            copy_lake(&wish, &folder, &named.files)?;
            lake.copied = true;
        }
        let manifest = Manifest {
            format: manifest::FORMAT.to_owned(),
            version: manifest::VERSION,
            made,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            authority: authority(&wish.data),
            migration: named.migration,
            audit: named.audit,
            lake,
            outside: wish.outside.clone(),
            members,
        };
        let (all, mut done) = (manifest.bytes().max(1), 0);
        let mut told = 0;
        let bytes = archive::write(&manifest, &sources, &unfinished.0, private(&unfinished.0)?, |member| {
            let tenth = done * 10 / all;
            if tenth > told {
                told = tenth;
                (wish.tell)(&format!("{} % is written", tenth * 10));
            }
            done += member.length;
            stopped(&wish.stop)
        })?;
        fs::rename(&unfinished.0, &path).map_err(BackupError::file("write", &path))?;
        durable::sync_folder(&folder).map_err(BackupError::file("sync", &folder))?;
        Ok(Made { path, bytes, manifest, missing })
    })
    .await
    .map_err(|_| BackupError::Stopped)?
}

fn stopped(stop: &AtomicBool) -> Result<(), BackupError> {
    if stop.load(Ordering::Relaxed) { Err(BackupError::Stopped) } else { Ok(()) }
}

/// Where the backup goes; nothing is there yet, and it is not inside the hub's own folder.
fn target(wish: &Wish, made: Micros) -> Result<PathBuf, BackupError> {
    let path = if wish.to.is_dir() { wish.to.join(name(made)) } else { wish.to.clone() };
    let folder = tributary_process::disk::folder_of(&path);
    let whole = fs::canonicalize(folder).map_err(BackupError::file("find the folder", folder))?;
    let data = fs::canonicalize(&wish.data).map_err(BackupError::file("find the folder", &wish.data))?;
    let in_the_way =
        |path: &Path, problem: &str| Err(BackupError::InTheWay { path: path.to_owned(), problem: problem.to_owned() });
    if whole.starts_with(&data) {
        return in_the_way(&whole, "lies inside the data folder itself, and would be lost together with it");
    }
    match path.exists() {
        true => in_the_way(&path, "is there already"),
        false => Ok(path),
    }
}

/// The fingerprint of the authority, if it lies in the data folder.
fn authority(data: &Path) -> Option<Sha256> {
    let text = fs::read_to_string(data.join("identity/authority.pem")).ok()?;
    Some(Certificate::all_from_pem(&text).ok()?.first()?.fingerprint())
}

/// What the copy of the catalog names.
struct Named {
    migration: i64,
    audit: manifest::Head,
    files: Vec<LakeFile>,
    packages: BTreeSet<String>,
    quarantine: Vec<String>,
}

impl Named {
    async fn read(copy: &Path) -> Result<Self, sqlx::Error> {
        let mut connection = catalog::open_to_read(copy).await?;
        let migration = sqlx::query_scalar("select coalesce(max(version), 0) from _sqlx_migrations")
            .fetch_one(&mut connection)
            .await?;
        let audit = audit::head(&mut connection).await?.into();
        let packages: Vec<String> = sqlx::query_scalar("select sha256 from versions union select sha256 from releases")
            .fetch_all(&mut connection)
            .await?;
        let quarantine = catalog::quarantine::paths(&mut connection).await?;
        let all = files::all(&mut connection).await?;
        connection.close().await?;
        let files = all.into_iter().map(|file| {
            let (number, path, rows, bytes) = (file.number, file.path, file.rows, file.bytes);
            LakeFile { number, path, rows, bytes }
        });
        Ok(Self { migration, audit, files: files.collect(), packages: packages.into_iter().collect(), quarantine })
    }

    fn lake_counts(&self) -> LakeCounts {
        let sum = |of: fn(&LakeFile) -> u64| self.files.iter().map(of).sum();
        let (rows, bytes) = (sum(|file| file.rows), sum(|file| file.bytes));
        LakeCounts { files: self.files.len() as u64, rows, bytes, copied: false }
    }
}

type Gathered = (Vec<Member>, Vec<Source>, Vec<String>);

/// All members but the manifest, with where their content is, and what is missing.
fn gather(wish: &Wish, copy: &Path, named: &Named) -> Result<Gathered, BackupError> {
    let (mut members, mut sources) = (Vec::new(), Vec::new());
    let mut missing = Vec::new();
    let mut add = |path: String, length: u64, sha256: Sha256, source: Source| {
        members.push(Member { path, length, sha256 });
        sources.push(source);
    };
    let hashed = |path: &Path| {
        let opened = File::open(path).and_then(archive::digest);
        opened.map_err(BackupError::file("read", path))
    };
    let (length, sha256) = hashed(copy)?;
    add(CATALOG.to_owned(), length, sha256, Source::File(copy.to_owned()));
    for part in ["keys", "identity"] {
        for (below, _) in trees::files(&wish.data.join(part))? {
            let path = wish.data.join(part).join(&below);
            // Small, and keys are renewed while the hub works: what is hashed is what is written.
            let bytes = fs::read(&path).map_err(BackupError::file("read", &path))?;
            let sha256 = tributary_release::digest(&bytes);
            add(format!("{part}/{below}"), bytes.len() as u64, sha256, Source::Bytes(bytes));
        }
    }
    // Everything in the folder: contents of agent, nodes and features have no rows of their own.
    let packages = trees::files(&wish.data.join("packages"))?;
    let there: BTreeSet<&str> = packages.iter().filter_map(|(name, _)| name.strip_suffix(".tpk")).collect();
    missing.extend(
        named.packages.iter().filter(|name| !there.contains(name.as_str())).map(|name| format!("packages/{name}.tpk")),
    );
    for (below, length) in &packages {
        let Some(sha256) = below.strip_suffix(".tpk").and_then(|name| name.parse().ok()) else { continue };
        add(format!("packages/{below}"), *length, sha256, Source::File(wish.data.join("packages").join(below)));
    }
    for (part, wanted) in [("quarantine", Some(&named.quarantine)), ("snapshots", None)] {
        let found: Vec<String> = match wanted {
            Some(names) => names.clone(),
            None => trees::files(&wish.data.join(part))?.into_iter().map(|(below, _)| below).collect(),
        };
        for below in found {
            stopped(&wish.stop)?;
            let path = wish.data.join(part).join(&below);
            match hashed(&path) {
                Ok((length, sha256)) => add(format!("{part}/{below}"), length, sha256, Source::File(path)),
                // Old snapshots are taken away while we look; a message that is missing is told of.
                Err(_) if !path.exists() && wanted.is_none() => {}
                Err(_) if !path.exists() => missing.push(format!("{part}/{below}")),
                Err(error) => return Err(error),
            }
        }
    }
    let mut lake = Vec::new();
    for file in &named.files {
        lake.extend(serde_json::to_vec(file).unwrap_or_default());
        lake.push(b'\n');
    }
    for (name, bytes) in [(LAKE, Some(lake)), (SETTINGS, wish.settings.clone().map(String::into_bytes))] {
        let Some(bytes) = bytes else { continue };
        add(name.to_owned(), bytes.len() as u64, tributary_release::digest(&bytes), Source::Bytes(bytes));
    }
    Ok((members, sources, missing))
}

/// Brings the lake's files into the folder `lake` beside the backup. One copy serves all backups there: the files never
/// change.
fn copy_lake(wish: &Wish, folder: &Path, files: &[LakeFile]) -> Result<Placed, BackupError> {
    let (from, to) = (wish.data.join("lake"), folder.join("lake"));
    fs::create_dir_all(&to).map_err(BackupError::file("make", &to))?;
    let files: Vec<(String, u64)> = files.iter().map(|file| (file.path.clone(), file.bytes)).collect();
    if !trees::one_system(&from, &to) {
        let new = files.iter().filter(|(path, _)| !to.join(path).exists());
        trees::room(&to, new.map(|(_, bytes)| bytes).sum::<u64>() + (1 << 20))?;
    }
    let all = files.len();
    let placed = trees::place(&from, &to, &files, |number| {
        if number > 0 && number % 1_000 == 0 {
            (wish.tell)(&format!("{number} of {all} files of the lake are there"));
        }
        stopped(&wish.stop)
    })?;
    let Placed { linked, copied, kept } = placed;
    (wish.tell)(&format!("the lake: {linked} files linked, {copied} copied, {kept} there already"));
    Ok(placed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_backups_sort_by_their_time() {
        assert_eq!(name(Micros(0)), "hub-19700101T000000.000Z.backup.tar.zst");
        assert_eq!(name(Micros(1_123_456)), "hub-19700101T000001.123Z.backup.tar.zst");
        assert!(name(Micros(1_700_000_000_123_456)) < name(Micros(1_700_000_000_124_000)));
        assert!(name(Micros(1_700_000_000_123_456)) < name(Micros(1_700_000_001_000_000)));
    }
}
