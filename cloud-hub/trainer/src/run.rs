//! The steps of a run, in order.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use tributary_features::View;
use tributary_release::{digest, sha256_file};

use crate::calibrate::{Calibration, scores, threshold};
use crate::champion::Champion;
use crate::dataset::Dataset;
use crate::error::{DatasetError, SpecError, TrainError};
use crate::fit::{Rows, fit};
use crate::graphs::{chain, exported, judge, quantized};
use crate::package::{Ingredients, assemble};
use crate::progress::{Log, Progress, Step};
use crate::result::RunResult;
use crate::spec::{RunSpec, WarmStart};
use crate::start::Start;

/// Name of the spec in a run's folder.
pub const SPEC_FILE: &str = "run.json";
/// Name of the progress lines in a run's folder.
pub const PROGRESS_FILE: &str = "progress.jsonl";
/// Name of the result in a run's folder; it exists exactly when the package does.
pub const RESULT_FILE: &str = "result.json";
/// Name of the package in a run's folder.
pub const PACKAGE_FILE: &str = "package.tpk";

/// Runs what `dir/run.json` asks for and leaves `progress.jsonl`, `package.tpk` and `result.json` beside it; those of an
/// earlier attempt are removed first.
pub fn run(dir: &Path, progress: &mut dyn Progress) -> Result<RunResult, TrainError> {
    let began = Instant::now();
    let path = dir.join(SPEC_FILE);
    let failed = |reason: String| TrainError::File { path: path.clone(), reason };
    let text = std::fs::read(&path).map_err(|error| failed(error.to_string()))?;
    let spec: RunSpec = serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
    for earlier in [RESULT_FILE, PACKAGE_FILE] {
        match std::fs::remove_file(dir.join(earlier)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(TrainError::File { path: dir.join(earlier), reason: error.to_string() });
            }
            _ => {}
        }
    }
    let mut log = Log::create(&dir.join(PROGRESS_FILE), progress)?;
    let (mut result, package) = train(&spec, dir, &mut log)?;
    write(&dir.join(PACKAGE_FILE), &package)?;
    result.seconds = began.elapsed().as_secs_f64();
    let text = serde_json::to_vec_pretty(&result).expect("numbers and texts become JSON");
    write(&dir.join(RESULT_FILE), &text)?;
    log.step(&Step::Done { bytes: result.package_bytes })?;
    Ok(result)
}

/// Everything but the files of the outcome: the result and the package's bytes.
fn train(spec: &RunSpec, dir: &Path, log: &mut Log<'_>) -> Result<(RunResult, Vec<u8>), TrainError> {
    spec.check()?;
    let view = View::from_toml(&spec.view).map_err(|error| SpecError::View(chain(&error)))?;
    let names = view.feature_names();
    if !spec.features.is_empty() && spec.features != names {
        let (found, expected) = (spec.features.join(", "), names.join(", "));
        return Err(SpecError::Features { found, expected }.into());
    }
    let path = dir.join(&spec.dataset);
    let unreadable = |error: std::io::Error| DatasetError::Unreadable { path: path.clone(), reason: error.to_string() };
    let (_, dataset_hash) = sha256_file(&path).map_err(unreadable)?;
    if let Some(expected) = spec.dataset_hash
        && expected != dataset_hash
    {
        return Err(DatasetError::OtherFile { path, expected, found: dataset_hash }.into());
    }
    let data = Dataset::read(&path, &names, &spec.label_column, &spec.time_column)?;
    let parts = data.split(spec.split)?;
    let champion = spec.champion.as_ref().map(|path| Champion::read(&dir.join(path), &names)).transpose()?;
    let start = |start: &WarmStart| Start::read(&dir.join(&start.package), &names, &spec.model, start.trained);
    let (start, left) = match spec.start.as_ref().map(|from| (from, start(from))) {
        None => (None, None),
        Some((_, Ok(start))) => (Some(start), None),
        Some((from, Err(error @ TrainError::Start { .. }))) if from.optional => (None, Some(error.to_string())),
        Some((_, Err(error))) => return Err(error),
    };
    log.step(&Step::Data {
        training: parts.training.len(),
        training_positives: data.positives(parts.training.clone()),
        validation: parts.validation.len(),
        test: parts.test.len(),
    })?;
    if let Some(reason) = left {
        log.step(&Step::FromScratch { reason })?;
    }
    let rows =
        |range: &std::ops::Range<usize>| Rows { features: data.rows(range.clone()), truth: data.truth(range.clone()) };
    let (training, validation, test) = (rows(&parts.training), rows(&parts.validation), rows(&parts.test));

    let from = (spec.seed, start.as_ref());
    let fitted = fit(&spec.model, &names, training, Some(validation), from, |step| log.step(step))?;
    let calibration = Calibration::fit(&fitted.logits(validation.features, data.width), validation.truth);
    let f32_graph = exported(&fitted, calibration, validation.features)?;
    let int8_graph = quantized(&f32_graph.graph, training)?;

    let f32_validation = f32_graph.predict(validation.features)?;
    let int8_validation = int8_graph.predict(validation.features)?;
    let quantization = judge(spec.quantization, &f32_validation, &int8_validation, validation.truth);
    let (f32, int8, passed) = (quantization.f32, quantization.int8, quantization.passed);
    log.step(&Step::Quantized { f32, int8, passed })?;

    // The test rows are touched from here on, and decide nothing about the package.
    let (f32_test, int8_test) = (f32_graph.predict(test.features)?, int8_graph.predict(test.features)?);
    let not_finite = || TrainError::Graph("the graph gives outputs that are not numbers".to_owned());
    let f32_scores = scores(&f32_test, test.truth).ok_or_else(not_finite)?;
    let int8_scores = scores(&int8_test, test.truth).ok_or_else(not_finite)?;
    let (validation_outputs, test_outputs) =
        if passed { (int8_validation, int8_test) } else { (f32_validation, f32_test) };
    let threshold = threshold(spec.decision, &validation_outputs, validation.truth);
    let compare = |champion: Champion| champion.compare(test.features, data.width, &test_outputs, test.truth);
    let comparison = champion.map(compare).transpose()?;

    let held_out = [validation_outputs, test_outputs].concat();
    let package = assemble(&Ingredients {
        spec,
        view: &view,
        dataset_hash,
        dataset: &data,
        parts: &parts,
        f32: (&f32_graph, f32_scores),
        int8: (&int8_graph, int8_scores),
        quantization: &quantization,
        held_out: &held_out,
        threshold,
    })?;
    let bytes = package.write().map_err(|error| TrainError::Package(chain(&error)))?;
    let result = RunResult {
        run: spec.run.clone(),
        line: spec.line.clone(),
        version: spec.version,
        dataset: dataset_hash,
        package: digest(&bytes),
        package_bytes: bytes.len() as u64,
        serve: package.manifest.serve.clone(),
        unlabelled: data.unlabelled,
        weighted: !data.weights.is_empty(),
        estimated: data.truth(0..data.labels.len()).total(),
        training: data.part(parts.training.clone()),
        validation: data.part(parts.validation.clone()),
        test: data.part(parts.test.clone()),
        best_epoch: fitted.best_epoch,
        threshold: threshold.into(),
        f32: f32_scores,
        int8: int8_scores,
        quantization,
        comparison,
        seconds: 0.0,
    };
    let served = result.served();
    log.step(&Step::Tested { auc: served.auc_roc, average_precision: served.average_precision })?;
    Ok((result, bytes))
}

/// Whole or not at all, also when the machine stops.
fn write(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let partial = path.with_extension("partial");
    let written = File::create(&partial)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&partial, path))
        .and_then(|()| path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all()));
    written.map_err(|error| TrainError::File { path: path.to_owned(), reason: error.to_string() })
}
