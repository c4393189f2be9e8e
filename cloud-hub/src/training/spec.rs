//! What the child process is told: line, dataset and champion become a [`RunSpec`].

use std::path::PathBuf;

use cloud_hub_trainer::{RunSpec, Trained, WarmStart};
use tributary_wire::{Micros, Sha256, VersionNumber};

use super::runs::Run;
use crate::lines::{Line, StartFrom};

/// The parts of a run's spec that do not stand in its row.
pub struct Parts {
    /// The line as it is now.
    pub line: Line,
    /// Text of the feature view of the dataset.
    pub view: String,
    /// The dataset's file.
    pub dataset: PathBuf,
    /// Its hash.
    pub dataset_hash: Sha256,
    /// The champion's package.
    pub champion: Option<PathBuf>,
    /// The number the version gets.
    pub version: VersionNumber,
}

/// Everything that decides the package, so that the same run gives the same bytes again.
pub fn compose(run: &Run, parts: Parts) -> RunSpec {
    let Parts { line, view, dataset, dataset_hash, champion, version } = parts;
    let training = line.settings.training;
    let trained = match training.start {
        StartFrom::Scratch => None,
        StartFrom::Champion => Some(Trained::All),
        StartFrom::ChampionLastLayer => Some(Trained::LastLayer),
    };
    let start = champion.clone().zip(trained);
    RunSpec {
        run: run.id.to_string(),
        line: line.name,
        version,
        created: Micros(run.created),
        seed: run.seed as u64,
        dataset,
        dataset_hash: Some(dataset_hash),
        view,
        features: Vec::new(),
        label_column: "label".to_owned(),
        time_column: "event_time".to_owned(),
        split: training.split,
        model: training.model,
        quantization: line.settings.quantization,
        decision: training.decision,
        trial: training.trial,
        champion,
        start: start.map(|(package, trained)| WarmStart { package, trained, optional: true }),
    }
}
