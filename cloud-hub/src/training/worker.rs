//! The worker: takes runs one after the other through their steps. Each step is stored before the next begins, so a
//! hub that was killed goes on where it stopped.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cloud_hub_trainer::{PACKAGE_FILE, RESULT_FILE, RunResult, SPEC_FILE};
use serde_json::json;
use tributary_process::durable;
use tributary_process::shutdown::Shutdown;
use tributary_release::Package;
use tributary_wire::VersionNumber;

use super::child::Trainer;
use super::runs::{self, Run, RunState, RunStep};
use super::{datasets, folder, spec};
use crate::hub::Hub;
use crate::lines::closed_loop::{self, Decided};
use crate::lines::{self, story};
use crate::registry::{aliases, versions, views};

/// A run ended otherwise than by success.
enum Ended {
    /// By its own failure.
    Failed(anyhow::Error),
    /// By a person.
    Cancelled,
    /// The hub stops; the run stays as it is and goes on at the next start.
    Stopped,
}

impl<E: Into<anyhow::Error>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// How soon a decision that waits for another rollout is tried again.
const WAIT: Duration = Duration::from_secs(2);

/// Carries out runs until the hub stops.
pub async fn run(hub: Arc<Hub>, shutdown: Shutdown) -> anyhow::Result<()> {
    recover(&hub).await.context("look for runs that were interrupted")?;
    while !shutdown.is_given() {
        let mut waits = false;
        for run in runs::undecided(&mut *hub.catalog.reader().acquire().await?).await? {
            waits |= closed_loop::decide(&hub, &run).await? == Decided::Waits;
        }
        if let Some(run) = runs::next(&mut *hub.catalog.reader().acquire().await?).await? {
            carry_out(&hub, run, &shutdown).await?;
            continue;
        }
        let again = async {
            match waits {
                true => tokio::time::sleep(WAIT).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.given() => break,
            () = hub.training.bell.notified() => {}
            () = again => {}
        }
    }
    Ok(())
}

/// Puts back what a stopped hub left in the middle; gives up on a run that was interrupted too often.
async fn recover(hub: &Hub) -> anyhow::Result<()> {
    let mut catalog = hub.catalog.write().await?;
    for run in runs::interrupted(&mut catalog).await? {
        let line = run.line()?;
        if run.attempt >= i64::from(hub.config.training.attempts) {
            let error = format!("the hub stopped in the middle of it {} times", run.attempt);
            runs::end(&mut catalog, run.id, RunState::Failed, &error, hub.now()).await?;
            let message = format!("run {} failed: {error}", run.id);
            story::tell(&mut catalog, &line, "run-failed", &message, json!({"run": run.id}), hub.now()).await?;
        } else {
            runs::requeue(&mut catalog, run.id, hub.now()).await?;
            let message = format!("the hub was stopped in the middle of run {}; it goes on", run.id);
            story::tell(&mut catalog, &line, "run-resumed", &message, json!({"run": run.id}), hub.now()).await?;
        }
    }
    catalog.commit().await?;
    Ok(())
}

async fn carry_out(hub: &Arc<Hub>, run: Run, shutdown: &Shutdown) -> anyhow::Result<()> {
    let (id, line) = (run.id, run.line()?);
    let cancelled = hub.training.begin(id);
    let work = async {
        let mut catalog = hub.catalog.write().await?;
        if !runs::begin(&mut catalog, id, hub.now()).await? {
            return Err(Ended::Cancelled);
        }
        if run.started.is_none() {
            let message = format!("run {id} began: {}", run.reason);
            story::tell(&mut catalog, &line, "run-started", &message, json!({"run": id}), hub.now()).await?;
        }
        catalog.commit().await?;
        steps(hub, run).await
    };
    // Dropping the work kills the child process and rolls back the transaction that is open.
    let end = tokio::select! {
        end = work => end,
        () = cancelled.cancelled() => Err(Ended::Cancelled),
        () = shutdown.given() => Err(Ended::Stopped),
    };
    hub.training.end(id);
    let (state, error) = match end {
        Ok(()) | Err(Ended::Stopped) => return Ok(()),
        Err(Ended::Cancelled) => (RunState::Cancelled, "cancelled".to_owned()),
        Err(Ended::Failed(error)) => (RunState::Failed, format!("{error:#}")),
    };
    let mut catalog = hub.catalog.write().await?;
    if runs::end(&mut catalog, id, state, &error, hub.now()).await? {
        let (kind, message) = match state {
            RunState::Cancelled => ("run-cancelled", format!("run {id} was cancelled")),
            _ => ("run-failed", format!("run {id} failed: {error}")),
        };
        story::tell(&mut catalog, &line, kind, &message, json!({"run": id}), hub.now()).await?;
    }
    catalog.commit().await?;
    Ok(())
}

async fn steps(hub: &Arc<Hub>, mut run: Run) -> Result<(), Ended> {
    if run.step == RunStep::Dataset {
        run.dataset = Some(make_dataset(hub, &run).await.context("make the dataset")?);
        run.step = RunStep::Train;
    }
    if run.step == RunStep::Train {
        run.version = Some(train(hub, &run).await?);
        let mut catalog = hub.catalog.write().await?;
        runs::trained(&mut catalog, run.id).await?;
        catalog.commit().await?;
    }
    register(hub, &run).await.context("register the version")?;
    Ok(())
}

async fn make_dataset(hub: &Arc<Hub>, run: &Run) -> anyhow::Result<i64> {
    let line = run.line()?;
    let settings = lines::get(&mut *hub.catalog.reader().acquire().await?, &line).await?;
    let wish = datasets::Wish::of_run(hub, settings, run).await?;
    let dataset = datasets::make(hub, wish).await?;
    let mut catalog = hub.catalog.write().await?;
    runs::has_dataset(&mut catalog, run.id, dataset.id).await?;
    let message = format!(
        "run {} has dataset {}: {} rows, {} positive, {} mismatches",
        run.id, dataset.id, dataset.rows, dataset.positives, dataset.mismatches
    );
    let detail = json!({"run": run.id, "dataset": dataset.id, "rows": dataset.rows});
    story::tell(&mut catalog, &line, "dataset-made", &message, detail, hub.now()).await?;
    catalog.commit().await?;
    Ok(dataset.id)
}

/// Lets the child process train; the number of the version it was given.
async fn train(hub: &Arc<Hub>, run: &Run) -> anyhow::Result<i64> {
    let line = run.line()?;
    let folder = folder(hub.data(), run.id);
    let mut catalog = hub.catalog.write().await?;
    let version = match run.version {
        Some(version) => VersionNumber(version as u32),
        None => versions::next_number(&mut catalog, &line).await?,
    };
    let champion = aliases::version(&mut catalog, &line, aliases::CHAMPION).await?;
    let champion = match champion {
        Some(champion) => Some(versions::get(&mut catalog, &line, champion).await?.reference()?.sha256),
        None => None,
    };
    let dataset = run.dataset.context("the run has no dataset")?;
    let dataset = datasets::find(&mut catalog, dataset).await?.context("the run's dataset is gone")?;
    let view = views::get(&mut catalog, &dataset.view_name, Some(dataset.view_version as u32)).await?;
    let line_now = lines::get(&mut catalog, &line).await?;
    runs::begin_attempt(&mut catalog, run.id, version).await?;
    catalog.commit().await?;
    // A child of an earlier life of the hub may have finished its work.
    if folder.join(RESULT_FILE).exists() {
        return Ok(version.0.into());
    }
    let parts = spec::Parts {
        line: line_now,
        view: view.source,
        dataset: datasets::path(hub.data(), &dataset.sha256),
        dataset_hash: dataset.sha256.parse()?,
        champion: champion.map(|sha256| hub.packages.path(&sha256)),
        version,
    };
    std::fs::create_dir_all(&folder).with_context(|| format!("make the folder {}", folder.display()))?;
    let spec = serde_json::to_vec_pretty(&spec::compose(run, parts))?;
    durable::write(&folder.join(SPEC_FILE), &spec).context("write the run's spec")?;
    Trainer::start(&hub.config.training, &folder)?.wait().await?;
    Ok(version.0.into())
}

/// Verifies what the child left, keeps the package, and registers the version; then the run has succeeded.
async fn register(hub: &Arc<Hub>, run: &Run) -> anyhow::Result<()> {
    let line = run.line()?;
    let folder = folder(hub.data(), run.id);
    let packages = hub.packages.clone();
    let read = tokio::task::spawn_blocking(move || read_package(&folder, &packages));
    let (package, result, stored) = read.await??;
    let expected = run.version.map(|version| VersionNumber(version as u32));
    anyhow::ensure!(
        expected == Some(package.manifest.version),
        "the package has version {}, reserved was {expected:?}",
        package.manifest.version
    );
    let value = serde_json::to_value(&result)?;
    let origin = versions::Origin::Trained {
        run: run.id,
        dataset: run.dataset,
        seed: run.seed,
        parent: result.comparison.as_ref().map(|comparison| comparison.champion),
        result: value.clone(),
    };
    let now = hub.now();
    let mut catalog = hub.catalog.write().await?;
    let (version, _) = versions::register(&mut catalog, &line, &package, stored, origin, now).await?;
    let reason = format!("trained by run {}", run.id);
    let number = package.manifest.version;
    aliases::set(&mut catalog, &line, aliases::CANDIDATE, number, &reason, None, now).await?;
    runs::succeed(&mut catalog, run.id, &value.to_string(), now).await?;
    let scores = result.served();
    let message = format!(
        "run {} gave version {number} ({}): AUC {:.4}, average precision {:.4} on {} later rows",
        run.id, result.serve, scores.auc_roc, scores.average_precision, scores.rows
    );
    let detail = json!({"run": run.id, "version": number, "package": version.sha256, "bytes": version.length});
    story::tell(&mut catalog, &line, "version-registered", &message, detail, now).await?;
    if !result.quantization.passed {
        let message = format!("version {number} ships as {}: {}", result.serve, result.quantization.reason);
        story::tell(&mut catalog, &line, "quantization-refused", &message, json!({"version": number}), now).await?;
    }
    catalog.commit().await?;
    Ok(())
}

type Stored = (tributary_wire::Sha256, u64);

fn read_package(
    folder: &std::path::Path,
    packages: &crate::registry::packages::PackageStore,
) -> anyhow::Result<(Package, RunResult, Stored)> {
    let result = std::fs::read(folder.join(RESULT_FILE)).context("read the run's result")?;
    let result: RunResult = serde_json::from_slice(&result).context("read the run's result")?;
    let bytes = std::fs::read(folder.join(PACKAGE_FILE)).context("read the run's package")?;
    let package = Package::read(&bytes).context("verify the run's package")?;
    let found = tributary_release::digest(&bytes);
    anyhow::ensure!(found == result.package, "the package has hash {found}, the result says {}", result.package);
    let sha256 = packages.put(&bytes).context("keep the package")?;
    Ok((package, result, (sha256, bytes.len() as u64)))
}
