//! Two packages on the same labelled rows, each run by the engine that devices run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cloud_hub_trainer::{Dataset, DatasetError};
use serde::{Deserialize, Serialize};
use tributary_inference::{InferenceError, load_served};
use tributary_release::Package;
use tributary_stats::ranking::Difference;
use tributary_wire::Sha256;
use ulid::Ulid;
use utoipa::ToSchema;

use super::datasets::{self, Wish};
use crate::hub::Hub;
use crate::registry::RegistryError;
use crate::registry::packages::PackageStore;

/// What one version scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Scored {
    /// Its number.
    pub version: u32,
    /// Precision of the graph that ran.
    pub serve: String,
    /// Area under the ROC curve.
    pub auc_roc: f64,
    /// Average precision.
    pub average_precision: f64,
    /// Mean output.
    pub mean_output: f64,
    /// Share of rows decided with yes.
    pub decided: f64,
}

/// Both versions.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Labelled rows.
    pub rows: usize,
    /// Of these positive.
    pub positives: usize,
    /// The first version.
    pub challenger: Scored,
    /// The second version.
    pub champion: Scored,
    /// By area under the curve.
    pub auc: Difference,
}

/// Why two versions cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The rows do not fit the packages.
    #[error("the rows do not fit")]
    Rows(#[from] DatasetError),
    /// A package does not run.
    #[error("a package does not run")]
    Inference(#[from] InferenceError),
    /// Nothing can be ranked.
    #[error("{rows} labelled rows with {positives} positives rank nothing; both classes are needed")]
    OneClass {
        /// Labelled rows.
        rows: usize,
        /// Of these positive.
        positives: usize,
    },
    /// The hub's own trouble.
    #[error("hub")]
    Hub(#[from] anyhow::Error),
}

impl From<RegistryError> for CompareError {
    fn from(error: RegistryError) -> Self {
        Self::Hub(error.into())
    }
}

/// Makes the rows, scores them with both packages, and throws the rows away.
pub async fn compare(hub: &Arc<Hub>, wish: Wish, challenger: Sha256, champion: Sha256) -> Result<Found, CompareError> {
    let scratch = Scratch(hub.data().join("scratch").join(Ulid::new().to_string()));
    let (rows, _, _) = datasets::build(hub, wish, scratch.0.clone()).await?;
    let packages = hub.packages.clone();
    let work = tokio::task::spawn_blocking(move || {
        let found = score(&rows.path, &packages, &challenger, &champion);
        drop(scratch);
        found
    });
    work.await.map_err(anyhow::Error::new)?
}

/// A folder that goes away with its owner, also when the caller hangs up.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn score(rows: &Path, packages: &PackageStore, challenger: &Sha256, champion: &Sha256) -> Result<Found, CompareError> {
    let (challenger, outputs, dataset) = outputs(rows, packages, challenger)?;
    let (champion, before, _) = self::outputs(rows, packages, champion)?;
    let labels = &dataset.labels;
    // Rows of a sample count for all that they stand for, so that the figures are those of what was served.
    let truth = dataset.truth(0..labels.len());
    let positives = labels.iter().filter(|label| **label).count();
    let one_class = || CompareError::OneClass { rows: labels.len(), positives };
    let auc = truth.auc_difference(&before, &outputs).ok_or_else(one_class)?;
    let scored = |package: &Package, outputs: &[f32]| {
        let decided = |row: usize| f64::from(u8::from(package.manifest.decision.decide(outputs[row])));
        Some(Scored {
            version: package.manifest.version.0,
            serve: package.manifest.serve.clone(),
            auc_roc: truth.auc_roc(outputs)?,
            average_precision: truth.average_precision(outputs)?,
            mean_output: truth.mean(|row| f64::from(outputs[row])),
            decided: truth.mean(decided),
        })
    };
    Ok(Found {
        rows: labels.len(),
        positives,
        challenger: scored(&challenger, &outputs).ok_or_else(one_class)?,
        champion: scored(&champion, &before).ok_or_else(one_class)?,
        auc,
    })
}

/// Rows at a time: enough to keep the engine busy, little enough to stay out of the gateway's way.
const ROWS_AT_ONCE: usize = 4096;

fn outputs(
    rows: &Path,
    packages: &PackageStore,
    sha256: &Sha256,
) -> Result<(Package, Vec<f32>, Dataset), CompareError> {
    let package = Package::read(&packages.read(sha256)?).map_err(RegistryError::from)?;
    let dataset = Dataset::read(rows, &package.manifest.features, "label", "event_time")?;
    let engine = load_served(&package)?;
    let width = package.manifest.features.len();
    let mut outputs = Vec::with_capacity(dataset.labels.len());
    let mut some = Vec::new();
    for rows in dataset.features.chunks(ROWS_AT_ONCE * width) {
        engine.predict(rows, rows.len() / width, &mut some)?;
        outputs.append(&mut some);
    }
    Ok((package, outputs, dataset))
}
