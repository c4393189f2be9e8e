//! Makes patches one after the other, and clears away what nobody needs.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tributary_process::durable;
use tributary_process::shutdown::Shutdown;
use tributary_release::delta::{DeltaError, Format, PatchEntry, make_while};
use tributary_release::digest;
use tributary_wire::Sha256;

use super::plan::{Job, next, refused, unneeded};
use super::serve::folder;
use super::store::{self, State, Stored};
use super::{Config, field};
use crate::hub::{Hub, HubEvent};

/// The longest rest in one go, so that an end is noticed soon.
const REST: Duration = Duration::from_millis(200);

/// Runs until the signal is given.
pub async fn run(hub: Arc<Hub>, shutdown: Shutdown) -> anyhow::Result<()> {
    let config = hub.config.patches.clone();
    if !config.enabled {
        shutdown.given().await;
        return Ok(());
    }
    let mut news = hub.bus.subscribe();
    loop {
        // Without patches devices fetch whole packages: nothing here may end the hub.
        if let Err(error) = pass(&hub, &config, &shutdown).await {
            tracing::warn!(error = format!("{error:#}"), "patches could not be made");
        }
        tokio::select! {
            () = shutdown.given() => return Ok(()),
            () = tokio::time::sleep(config.interval.0) => {}
            () = rollout_begins(&mut news) => {}
        }
    }
}

/// Ends when somebody waits for patches. News that was missed is made up for by the interval.
async fn rollout_begins(news: &mut Receiver<HubEvent>) {
    loop {
        match news.recv().await {
            Ok(HubEvent::RolloutBegan) => return,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

/// Clears away, then makes whatever is to be made.
async fn pass(hub: &Arc<Hub>, config: &Config, shutdown: &Shutdown) -> anyhow::Result<()> {
    loop {
        let targets = field::targets(&mut *hub.catalog.reader().acquire().await?).await?;
        let known = store::all(hub.catalog.reader()).await?;
        for gone in unneeded(&targets, &known, config) {
            forget(hub, gone).await?;
        }
        let rows = store::all(hub.catalog.reader()).await?;
        let sweeper = hub.clone();
        let swept = tokio::task::spawn_blocking(move || sweep(&sweeper, &rows)).await?;
        let lost = swept.context("the folder of patches")?;
        for row in &lost {
            forget(hub, row).await?;
        }
        let known = store::all(hub.catalog.reader()).await?;
        let Some(job) = next(&targets, &known, config, hub.now()) else { return Ok(()) };
        let began = Instant::now();
        let made = {
            let (hub, shutdown) = (hub.clone(), shutdown.clone());
            tokio::task::spawn_blocking(move || make(&hub, &job, &shutdown)).await?
        };
        let row = match made {
            Err(error) if error.downcast_ref().is_some_and(|error| matches!(error, DeltaError::Stopped)) => {
                return Ok(());
            }
            Err(error) => row(hub, &job, (Format::Aligned, &[]), State::Failed, format!("{error:#}")),
            Ok((format, patch)) => match refused(&job, patch.len() as u64, &known, config) {
                Some((state, reason)) => row(hub, &job, (format, &patch), state, reason),
                None => {
                    let keeper = hub.clone();
                    let (patch, kept) = tokio::task::spawn_blocking(move || keep(&keeper, &job, format, patch)).await?;
                    match kept {
                        Ok(()) => row(hub, &job, (format, &patch), State::Made, String::new()),
                        Err(error) => row(hub, &job, (format, &[]), State::Failed, format!("its file: {error}")),
                    }
                }
            },
        };
        let row = Stored { seconds: began.elapsed().as_secs_f64(), ..row };
        let Stored { target, base, format, length, reason, seconds, .. } = &row;
        tracing::info!(to = target, from = base, format, length, seconds, reason, "patch");
        let mut transaction = hub.catalog.write().await?;
        store::put(&mut transaction, &row).await?;
        transaction.commit().await?;
        hub.bus.publish(HubEvent::Patched);
    }
}

fn row(hub: &Hub, job: &Job, (format, patch): (Format, &[u8]), state: State, reason: String) -> Stored {
    Stored {
        target: job.to.to_string(),
        base: job.from.map_or(String::new(), |base| base.to_string()),
        format: format.name().to_owned(),
        state,
        length: patch.len() as i64,
        sha256: digest(patch).to_string(),
        reason,
        seconds: 0.0,
        made: hub.now().0,
    }
}

/// The patch, made at half speed: after every piece the thread rests as long as it worked. Of a whole package the shorter
/// of its compressed forms.
fn make(hub: &Hub, job: &Job, shutdown: &Shutdown) -> anyhow::Result<(Format, Vec<u8>)> {
    let new = hub.packages.read(&job.to)?;
    let old = job.from.map(|base| hub.packages.read(&base)).transpose().context("the package it starts from")?;
    let mut began = Instant::now();
    let mut go_on = || {
        let mut left = began.elapsed();
        while !left.is_zero() && !shutdown.is_given() {
            let rest = left.min(REST);
            std::thread::sleep(rest);
            left -= rest;
        }
        began = Instant::now();
        !shutdown.is_given()
    };
    let aligned = make_while(Format::Aligned, old.as_deref(), &new, &mut go_on)?;
    if old.is_none() {
        let packed = make_while(Format::Zstd, None, &new, &mut go_on)?;
        if packed.len() < aligned.len() {
            return Ok((Format::Zstd, packed));
        }
    }
    Ok((Format::Aligned, aligned))
}

fn entry(job: &Job, format: Format) -> PatchEntry {
    PatchEntry { from: job.from, format: format.name().to_owned(), length: 0, sha256: Sha256([0; 32]) }
}

/// Puts the file in its place durably; its row comes after.
fn keep(hub: &Hub, job: &Job, format: Format, patch: Vec<u8>) -> (Vec<u8>, io::Result<()>) {
    let folder = folder(hub, &job.to);
    let kept = fs::create_dir_all(&folder)
        .and_then(|()| durable::write(&folder.join(entry(job, format).file_name()), &patch))
        .and_then(|()| durable::sync_folder(&hub.data().join("patches")))
        .and_then(|()| durable::sync_folder(hub.data()));
    (patch, kept)
}

/// First the row, then the file: a row never names a file that is gone.
async fn forget(hub: &Hub, row: &Stored) -> anyhow::Result<()> {
    let mut transaction = hub.catalog.write().await?;
    store::remove(&mut transaction, row).await?;
    transaction.commit().await?;
    let (Some(entry), Ok(to)) = (row.entry(), row.target.parse()) else { return Ok(()) };
    let path = folder(hub, &to).join(entry.file_name());
    match tokio::task::spawn_blocking(move || fs::remove_file(path)).await? {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("remove a patch"),
        _ => Ok(()),
    }
}

/// Removes files that no row names, which a crash may have left, and empty folders. Gives the rows whose files are not
/// there as they should be.
fn sweep(hub: &Hub, rows: &[Stored]) -> io::Result<Vec<Stored>> {
    let base = hub.data().join("patches");
    let named = |row: &&Stored| Some((base.join(&row.target).join(row.entry()?.file_name()), row.length as u64));
    let files: Vec<_> = rows.iter().filter_map(|row| named(&row)).collect();
    let entries = match fs::read_dir(&base) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        entries => Some(entries?),
    };
    for of_target in entries.into_iter().flatten() {
        let of_target = of_target?.path();
        let mut left = 0;
        for file in fs::read_dir(&of_target)? {
            let path = file?.path();
            if files.iter().any(|(known, _)| *known == path) { left += 1 } else { fs::remove_file(path)? }
        }
        if left == 0 {
            fs::remove_dir(of_target)?;
        }
    }
    let lost = |row: &&Stored| {
        named(row).is_some_and(|(path, length)| fs::metadata(path).map_or(true, |found| found.len() != length))
    };
    Ok(rows.iter().filter(lost).cloned().collect())
}
