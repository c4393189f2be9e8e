//! Champion and challenger on the same held-out rows.

use std::path::Path;

use tributary_inference::load_served;
use tributary_release::Package;

use crate::calibrate::scores;
use crate::error::TrainError;
use crate::graphs::chain;
use crate::result::Comparison;
use crate::truth::Truth;

/// Enough for the outer two and a half percent; a run of ten seconds hardly notices them.
const RESAMPLINGS: usize = 400;
/// The same rows give the same interval.
const RESAMPLING_SEED: u64 = 1;

/// A package that serves now.
pub struct Champion {
    package: Package,
    /// Where each of its features stands in a row of the dataset.
    columns: Vec<usize>,
}

impl Champion {
    /// Reads it and finds its features in the dataset's.
    pub fn read(path: &Path, features: &[String]) -> Result<Self, TrainError> {
        let wrong = |reason: String| TrainError::Champion { path: path.to_owned(), reason };
        let file = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let package = Package::read(&file).map_err(|error| wrong(chain(&error)))?;
        let place = |name: &String| {
            features
                .iter()
                .position(|feature| feature == name)
                .ok_or_else(|| wrong(format!("it needs feature {name:?}; the dataset has {}", features.join(", "))))
        };
        let columns = package.manifest.features.iter().map(place).collect::<Result<_, _>>()?;
        Ok(Self { package, columns })
    }

    /// Scores it beside the challenger's outputs on rows that neither was trained on.
    pub fn compare(
        &self,
        rows: &[f32],
        width: usize,
        challenger: &[f32],
        truth: Truth<'_>,
    ) -> Result<Comparison, TrainError> {
        let wrong = |error: &dyn std::error::Error| TrainError::Graph(format!("champion: {}", chain(error)));
        let engine = load_served(&self.package).map_err(|error| wrong(&error))?;
        let own: Vec<f32> =
            rows.chunks_exact(width).flat_map(|row| self.columns.iter().map(|column| row[*column])).collect();
        let mut outputs = Vec::new();
        engine.predict(&own, truth.labels.len(), &mut outputs).map_err(|error| wrong(&error))?;
        // What it could not score must not win by being undefined.
        outputs.iter_mut().filter(|output| output.is_nan()).for_each(|output| *output = 0.0);
        let one_class = || TrainError::Graph("the test rows lost a class".to_owned());
        let champion_scores = scores(&outputs, truth).ok_or_else(one_class)?;
        let auc = truth.auc_difference(&outputs, challenger).ok_or_else(one_class)?;
        let precision = truth.average_precision_difference(&outputs, challenger, (RESAMPLINGS, RESAMPLING_SEED));
        let precision = precision.ok_or_else(one_class)?;
        Ok(Comparison {
            champion: self.package.manifest.version,
            champion_scores,
            auc_roc_gain: auc.difference,
            average_precision_gain: precision.difference,
            auc_roc_gain_interval: (auc.lower, auc.upper),
            average_precision_gain_interval: (precision.lower, precision.upper),
            better: auc.difference > 0.0,
        })
    }
}
