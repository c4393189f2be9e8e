//! Packages in place, by role, and what each did since.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tributary_stats::LatencySketch;
use tributary_wire::{Role, Sha256, TrialReport};

use super::cache::PredictionCache;
use crate::packages::ActivePackage;

/// Outputs of one package for some rows: the value, or why there is none.
pub(super) type Scored = Result<f32, String>;

#[derive(Debug)]
struct Statistics {
    predictions: u64,
    errors: u64,
    latency: LatencySketch,
    output_sum: f64,
    outputs: u64,
}

/// A package in place.
pub struct Slot {
    package: Arc<ActivePackage>,
    statistics: Mutex<Statistics>,
    cache: Mutex<PredictionCache>,
}

impl Slot {
    fn new(package: Arc<ActivePackage>, cache: usize) -> Self {
        let statistics =
            Statistics { predictions: 0, errors: 0, latency: LatencySketch::default(), output_sum: 0.0, outputs: 0 };
        Self { package, statistics: Mutex::new(statistics), cache: Mutex::new(PredictionCache::new(cache)) }
    }

    /// The package.
    pub fn package(&self) -> &Arc<ActivePackage> {
        &self.package
    }

    /// Whether it holds the package of this content.
    pub(super) fn is(&self, package: &Sha256) -> bool {
        self.package.reference.sha256 == *package
    }

    /// What it did since it was put in place.
    pub fn statistics(&self) -> TrialReport {
        let statistics = self.statistics_mut();
        TrialReport {
            predictions: statistics.predictions,
            errors: statistics.errors,
            latency_p99_us: statistics.latency.quantile(0.99).map_or(0, |micros| micros.ceil() as u64),
            output_mean: if statistics.outputs == 0 { 0.0 } else { statistics.output_sum / statistics.outputs as f64 },
        }
    }

    fn statistics_mut(&self) -> MutexGuard<'_, Statistics> {
        self.statistics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one prediction; `output` is missing when it failed.
    pub(super) fn count(&self, output: Option<f32>, error: bool, latency_us: u64) {
        let mut statistics = self.statistics_mut();
        statistics.predictions += 1;
        statistics.errors += u64::from(error);
        statistics.latency.record(latency_us);
        // A mean over what is no number would hide all others.
        if let Some(output) = output.filter(|output| output.is_finite()) {
            statistics.output_sum += f64::from(output);
            statistics.outputs += 1;
        }
    }

    /// Scores rows, as few calls of the engine as the cache allows; how many came from the cache.
    pub(super) fn score(&self, rows: &[&[f32]]) -> (Vec<Scored>, u64) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scored: Vec<Option<Scored>> = rows.iter().map(|row| cache.get(row).map(Ok)).collect();
        let missing: Vec<usize> = (0..rows.len()).filter(|row| scored[*row].is_none()).collect();
        let hits = (rows.len() - missing.len()) as u64;
        if !missing.is_empty() {
            let input: Vec<f32> = missing.iter().flat_map(|row| rows[*row].iter().copied()).collect();
            let mut outputs = Vec::new();
            let engine = &self.package.engine;
            let result = engine.predict(&input, missing.len(), &mut outputs);
            let width = engine.outputs().max(1);
            for (place, row) in missing.into_iter().enumerate() {
                scored[row] = Some(match (&result, outputs.get(place * width)) {
                    (Ok(()), Some(output)) => {
                        cache.put(rows[row], *output);
                        Ok(*output)
                    }
                    (Ok(()), None) => Err("the engine gave too few outputs".into()),
                    (Err(error), _) => Err(error.to_string()),
                });
            }
        }
        let never = || Err("not scored".to_owned());
        (scored.into_iter().map(|scored| scored.unwrap_or_else(never)).collect(), hits)
    }
}

/// All packages in place. A clone is what one group of events is served by, whatever is swapped meanwhile.
#[derive(Clone, Default)]
pub struct Slots {
    roles: Arc<BTreeMap<Role, Arc<Slot>>>,
}

impl Slots {
    /// The slot of a role.
    pub fn get(&self, role: &Role) -> Option<&Arc<Slot>> {
        self.roles.get(role)
    }

    /// The slot that answers.
    pub fn primary(&self) -> Option<&Arc<Slot>> {
        self.roles.get(&Role::primary())
    }

    /// All, in order of their roles.
    pub fn iter(&self) -> impl Iterator<Item = (&Role, &Arc<Slot>)> {
        self.roles.iter()
    }

    pub(super) fn with(&self, role: Role, package: Option<Arc<ActivePackage>>, cache: usize) -> Self {
        let mut roles = (*self.roles).clone();
        match package {
            Some(package) => roles.insert(role, Arc::new(Slot::new(package, cache))),
            None => roles.remove(&role),
        };
        Self { roles: Arc::new(roles) }
    }
}
