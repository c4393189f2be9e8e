//! Backups that are made by themselves, or because somebody asked the hub: one at a time.
//!
//! A backup holds the hub's keys, so the web API makes one on the hub's side and never sends it: an administrator's token
//! must not be worth as much as all keys.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tributary_process::config::HumanDuration;
use tributary_process::shutdown::Shutdown;
use tributary_wire::Micros;

use super::create::{Made, Wish, create};
use super::{BackupError, Listed, look};
use crate::audit::{self, Change};
use crate::catalog::alerts;
use crate::config::Config;
use crate::hub::Hub;

/// The alert that the last backup is old, or that the last attempt failed; subject: the folder.
pub const LATE: &str = "backup-late";
/// How often is looked whether one is due.
const LOOK: Duration = Duration::from_secs(30);

/// What is known of backups since the start, and who makes one now.
#[derive(Debug, Default)]
pub struct Backups {
    busy: AtomicBool,
    stop: Arc<AtomicBool>,
    made: AtomicU64,
    failed: AtomicU64,
    last: AtomicI64,
    last_bytes: AtomicU64,
    problem: Mutex<Option<String>>,
    /// When the last one that somebody asked for ended, well or not.
    asked: Mutex<Option<Instant>>,
}

/// Whoever holds it makes the one backup.
struct Turn<'a>(&'a Backups);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}

impl Backups {
    fn turn(&self) -> Result<Turn<'_>, BackupError> {
        let taken = self.busy.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
        taken.map(|_| Turn(self)).map_err(|_| BackupError::Busy)
    }

    /// How long somebody who asks for a backup has to wait, because one that was asked for ended shortly before.
    fn rests(&self, pause: Duration, now: Instant) -> Option<Duration> {
        let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let left = pause.checked_sub(now.saturating_duration_since(asked?))?;
        (!left.is_zero()).then_some(left)
    }

    /// Backups made and failed since the start, time (UTC microseconds; 0: none is known) and length of the last.
    pub fn counts(&self) -> (u64, u64, i64, u64) {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (of(&self.made), of(&self.failed), self.last.load(Ordering::Relaxed), of(&self.last_bytes))
    }

    fn note(&self, listed: Option<&Listed>) {
        if let Some((made, bytes)) = listed.and_then(|listed| Some((listed.made?, listed.bytes))) {
            self.last.fetch_max(made, Ordering::Relaxed);
            self.last_bytes.store(bytes, Ordering::Relaxed);
        }
    }
}

/// Files that settings name outside the data folder, and no backup of it holds.
pub fn outside(config: &Config) -> Vec<String> {
    let files = [&config.identity.authority, &config.identity.authority_key];
    files.into_iter().flatten().map(|path| path.display().to_string()).collect()
}

/// What a backup of a hub with these settings is to be.
pub fn wish(config: &Config, to: PathBuf, stop: Arc<AtomicBool>) -> Wish {
    Wish {
        data: config.data_dir.clone(),
        to,
        settings: tributary_process::config::print(config).ok(),
        outside: outside(config),
        with_lake: config.backup.with_lake,
        tell: Arc::new(|words| tracing::info!(words, "backup")),
        stop,
    }
}

/// Makes a backup because somebody asked for one: not again and again, for each reads the whole catalog, fills a disk and
/// takes the place of an older one.
pub async fn make_asked(hub: &Hub) -> Result<Made, BackupError> {
    if let Some(left) = hub.backups.rests(hub.config.backup.pause.0, Instant::now()) {
        return Err(BackupError::TooSoon {
            // In whole seconds, of which the last may be begun.
            left: HumanDuration(Duration::from_secs(left.as_secs() + 1)),
            pause: hub.config.backup.pause,
        });
    }
    let made = make(hub).await;
    if !matches!(made, Err(BackupError::Busy)) {
        *hub.backups.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
    made
}

/// Makes a backup in the folder of the settings, writes it down, and removes what is too much.
pub async fn make(hub: &Hub) -> Result<Made, BackupError> {
    let folder = hub.config.backup.folder().cloned().unwrap_or_default();
    let _turn = hub.backups.turn()?;
    let made = async {
        std::fs::create_dir_all(&folder).map_err(BackupError::file("make", &folder))?;
        let of = hub.data().join(super::manifest::CATALOG);
        let mut reader = hub.catalog.reader().acquire().await.map_err(BackupError::catalog("read", &of))?;
        create(&mut reader, wish(&hub.config, folder.clone(), hub.backups.stop.clone())).await
    };
    let made = match made.await {
        Ok(made) => made,
        Err(error) => {
            hub.backups.failed.fetch_add(1, Ordering::Relaxed);
            let words = crate::api::chain(&error);
            *hub.backups.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
            return Err(error);
        }
    };
    hub.backups.made.fetch_add(1, Ordering::Relaxed);
    hub.backups.last.store(made.manifest.made.0, Ordering::Relaxed);
    hub.backups.last_bytes.store(made.bytes, Ordering::Relaxed);
    *hub.backups.problem.lock().unwrap_or_else(PoisonError::into_inner) = None;
    if let Err(error) = written_down(hub, &made).await {
        tracing::error!(error = &error as &dyn std::error::Error, "a backup could not be written into the audit log");
    }
    if let Err(error) = prune(hub, &folder) {
        tracing::warn!(error = crate::api::chain(&error), "older backups could not be removed");
    }
    Ok(made)
}

async fn written_down(hub: &Hub, made: &Made) -> Result<(), sqlx::Error> {
    let mut write = hub.catalog.write().await?;
    record(&mut write, made, hub.now()).await?;
    alerts::resolve(&mut write, LATE, &hub.config.backup.folder.display().to_string(), hub.now()).await?;
    write.commit().await
}

/// Writes a backup into the audit log.
pub async fn record(write: &mut sqlx::SqliteConnection, made: &Made, now: Micros) -> Result<(), sqlx::Error> {
    let subject = made.path.file_name().unwrap_or_default().to_string_lossy();
    let (from, to) = (serde_json::Value::Null, made.summary());
    audit::record(write, Change { action: "backup.create", subject: &subject, from, to }, now).await
}

/// Removes the oldest backups beyond those that are kept. The lake's copied files stay: the newest backup names them.
fn prune(hub: &Hub, folder: &std::path::Path) -> Result<(), BackupError> {
    let mut listed = look::list(folder)?;
    let excess = listed.len().saturating_sub(hub.config.backup.keep);
    for old in listed.drain(..excess) {
        std::fs::remove_file(&old.path).map_err(BackupError::file("remove", &old.path))?;
        tracing::info!(path = %old.path.display(), "an old backup was removed");
    }
    Ok(())
}

/// Whether a backup is due: none is there, or the newest is old enough. One whose time lies ahead (the clock was set
/// back) is taken for old.
pub fn is_due(newest: Option<i64>, every: Duration, now: Micros) -> bool {
    let age = |made: i64| now.0.saturating_sub(made);
    newest.is_none_or(|made| age(made) < 0 || age(made) >= i64::try_from(every.as_micros()).unwrap_or(i64::MAX))
}

/// Makes backups when they are due, until the signal.
pub async fn run(hub: Arc<Hub>, shutdown: Shutdown) -> anyhow::Result<()> {
    loop {
        if let Some(folder) = hub.config.backup.folder().cloned() {
            let looked = tokio::select! {
                () = shutdown.given() => {
                    hub.backups.stop.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                looked = look_once(&hub, folder) => looked,
            };
            if let Err(error) = looked {
                tracing::error!(error = format!("{error:#}"), "backups could not be looked after; trying again");
            }
        }
        tokio::select! {
            () = shutdown.given() => return Ok(()),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn look_once(hub: &Hub, folder: PathBuf) -> anyhow::Result<()> {
    let there = {
        let folder = folder.clone();
        tokio::task::spawn_blocking(move || look::list(&folder)).await?.unwrap_or_default()
    };
    let newest = there.iter().rev().find(|listed| listed.made.is_some());
    hub.backups.note(newest);
    let (made, every) = (newest.and_then(|listed| listed.made), hub.config.backup.every.0);
    if !is_due(made, every, hub.now()) {
        return Ok(());
    }
    match make(hub).await {
        Ok(_) | Err(BackupError::Busy | BackupError::Stopped) => return Ok(()),
        Err(error) => tracing::error!(error = crate::api::chain(&error), "no backup could be made; trying again"),
    }
    if is_due(made, every * 2, hub.now()) {
        let problem = hub.backups.problem.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let detail = json!({
            "problem": format!("the last backup is older than twice {}", hub.config.backup.every),
            "last": made.map(|made| Micros(made).to_string()), "why": problem,
        });
        let mut write = hub.catalog.write().await?;
        let subject = folder.display().to_string();
        let alert = alerts::Raise { kind: LATE, subject: &subject, severity: "critical", detail };
        alerts::raise(&mut write, alert, hub.now()).await?;
        write.commit().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_twice_waits_for_the_rest_of_the_pause() {
        let (backups, now, second) = (Backups::default(), Instant::now(), Duration::from_secs(1));
        assert_eq!(backups.rests(60 * second, now), None, "nobody has asked yet");
        *backups.asked.lock().unwrap() = Some(now);
        assert_eq!(backups.rests(60 * second, now + 20 * second), Some(40 * second));
        assert_eq!(backups.rests(60 * second, now + 60 * second), None);
        assert_eq!(backups.rests(Duration::ZERO, now), None, "no pause is wanted");
    }

    #[test]
    fn a_backup_is_due_when_there_is_none_or_the_newest_is_old() {
        let (hour, every) = (3_600 * Micros::SECOND, Duration::from_secs(3_600));
        let now = Micros(100 * hour);
        assert!(is_due(None, every, now));
        assert!(!is_due(Some(100 * hour), every, now));
        assert!(!is_due(Some(99 * hour + 1), every, now));
        assert!(is_due(Some(99 * hour), every, now));
        assert!(is_due(Some(101 * hour), every, now), "the clock was set back");
        assert!(!is_due(Some(99 * hour), every * 2, now));
    }
}
