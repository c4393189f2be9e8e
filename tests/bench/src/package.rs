//! A fraud package like those that devices run: trained here, on generated payments, by the hub's own trainer.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use arrow::array::{ArrayRef, BooleanArray, Float32Array, RecordBatch, TimestampMicrosecondArray};
use cloud_hub_trainer::{ModelSpec, PACKAGE_FILE, RunSpec, SPEC_FILE, Split, Step, TrialLimits, WarmStart, run};
use parquet::arrow::ArrowWriter;
use tributary_features::{Replay, View};
use tributary_fraud::{Generator, GeneratorConfig, Transaction, VIEW_TOML};
use tributary_wire::{LineName, Micros, VersionNumber};

use crate::programs::LINE;

/// Predictions of its trial on a device.
pub const TRIAL: u64 = 20;
/// Long enough for windows of 30 days with labels a week late, and two weeks to validate and test.
pub const DAYS: u32 = 60;

/// Payments of many customers, and a package trained on the first of them.
pub struct Trained {
    /// The package file.
    pub package: Vec<u8>,
    /// What comes after the days that it was trained on.
    pub later: Vec<Transaction>,
}

/// Trains in `folder`.
pub fn train(folder: &Path) -> anyhow::Result<Trained> {
    let view = View::from_toml(VIEW_TOML).context("the card-risk view")?;
    let config = GeneratorConfig { customers: 1_000, terminals: 400, days: DAYS + 30, ..GeneratorConfig::default() };
    let end = Micros(config.start.0 + i64::from(DAYS) * Micros::DAY);
    let (first, later): (Vec<_>, Vec<_>) = Generator::new(config).partition(|payment| payment.time < end);
    write_dataset(&folder.join("dataset.parquet"), &view, &first)?;
    let spec = spec(end)?;
    std::fs::write(folder.join(SPEC_FILE), serde_json::to_vec(&spec)?).context("write the run")?;
    run(folder, &mut |_: &Step| true).context("train a package")?;
    let package = std::fs::read(folder.join(PACKAGE_FILE)).context("read the package")?;
    Ok(Trained { package, later })
}

/// The next version as a nightly run makes it: trained further, in the folder of the first.
pub fn retrain(folder: &Path, first: &[u8]) -> anyhow::Result<Vec<u8>> {
    let start = folder.join("start.tpk");
    std::fs::write(&start, first).context("write the package to start from")?;
    let text = std::fs::read(folder.join(SPEC_FILE)).context("read the first run")?;
    let spec: RunSpec = serde_json::from_slice(&text)?;
    let spec = RunSpec {
        version: VersionNumber(2),
        seed: 2,
        model: ModelSpec { epochs: 2, learning_rate: 1e-3, ..spec.model },
        start: Some(WarmStart { package: start, trained: cloud_hub_trainer::Trained::All, optional: false }),
        ..spec
    };
    std::fs::write(folder.join(SPEC_FILE), serde_json::to_vec(&spec)?).context("write the second run")?;
    run(folder, &mut |_: &Step| true).context("train a package further")?;
    std::fs::read(folder.join(PACKAGE_FILE)).context("read the second package")
}

/// A run over `dataset.parquet`; `end` is where its payments end.
pub fn spec(end: Micros) -> anyhow::Result<RunSpec> {
    Ok(RunSpec {
        run: "bench".to_owned(),
        line: LineName::new(LINE)?,
        version: VersionNumber(1),
        created: end,
        seed: 1,
        dataset: "dataset.parquet".into(),
        dataset_hash: None,
        view: VIEW_TOML.to_owned(),
        features: Vec::new(),
        label_column: "label".to_owned(),
        time_column: "event_time".to_owned(),
        split: Split::default(),
        // The size that ships; few passes, because only its speed is asked for.
        model: ModelSpec { epochs: 3, ..ModelSpec::default() },
        quantization: Default::default(),
        decision: Default::default(),
        // A device of a busy machine must not undo what is to be measured.
        trial: TrialLimits {
            min_predictions: TRIAL,
            max_latency_p99_us: 10_000_000,
            output_mean_factor: 1e6,
            ..TrialLimits::default()
        },
        champion: None,
        start: None,
    })
}

/// The dataset as the hub makes it.
pub fn write_dataset(path: &Path, view: &View, payments: &[Transaction]) -> anyhow::Result<()> {
    let width = view.features().len();
    let mut features = vec![0.0; payments.len() * width];
    let mut replay = Replay::new(view);
    for (payment, out) in payments.iter().zip(features.chunks_mut(width)) {
        replay.observe(&payment.to_row(), payment.fraud, out);
    }
    let times = TimestampMicrosecondArray::from_iter_values(payments.iter().map(|payment| payment.time.0));
    let mut columns: Vec<(String, ArrayRef)> =
        vec![("event_time".to_owned(), Arc::new(times.with_timezone("UTC")) as ArrayRef)];
    for (at, name) in view.feature_names().into_iter().enumerate() {
        let values = Float32Array::from_iter_values(features.iter().skip(at).step_by(width).copied());
        columns.push((name, Arc::new(values)));
    }
    let labels: BooleanArray = payments.iter().map(|payment| Some(payment.fraud)).collect();
    columns.push(("label".to_owned(), Arc::new(labels)));
    let rows = RecordBatch::try_from_iter(columns)?;
    let mut writer = ArrowWriter::try_new(File::create(path)?, rows.schema(), None)?;
    writer.write(&rows)?;
    writer.close().context("write the dataset")?;
    Ok(())
}
