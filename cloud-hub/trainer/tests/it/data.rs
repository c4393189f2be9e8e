//! A small view, datasets for it, and run folders.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float32Array, StringArray, TimestampMicrosecondArray};
use arrow::record_batch::RecordBatch;
use cloud_hub_trainer::{ModelSpec, PACKAGE_FILE, RESULT_FILE, RunResult, RunSpec, SPEC_FILE, TrainError, run};
use parquet::arrow::ArrowWriter;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;
use tributary_release::Package;

pub const VIEW: &str = r#"
name = "payments"
version = 1
lateness = "8s"
label_delay = "1d"

[[entity]]
name = "customer"
kind = "int"

[[value]]
name = "amount"
kind = "double"
required = true

[[value]]
name = "distance"
kind = "double"
required = true

[[feature]]
name = "amount"
kind = "value"
value = "amount"

[[feature]]
name = "distance"
kind = "value"
value = "distance"

[[feature]]
name = "night"
kind = "night"
hours = [0, 6]
"#;

/// One row of a dataset; `None` stands for null.
#[derive(Clone)]
pub struct Row {
    pub time: i64,
    pub features: [Option<f32>; 3],
    pub label: Option<bool>,
}

pub const DAY: i64 = 86_400_000_000;

/// Rows over some days; `draw` makes features and label of one.
pub fn rows(days: i64, per_day: i64, seed: u64, draw: impl Fn(&mut StdRng) -> ([f32; 3], bool)) -> Vec<Row> {
    let mut rng = StdRng::seed_from_u64(seed);
    let start = 17_700 * DAY;
    (0..days * per_day)
        .map(|at| {
            let (features, label) = draw(&mut rng);
            Row { time: start + at * (DAY / per_day), features: features.map(Some), label: Some(label) }
        })
        .collect()
}

/// Rare positives that follow from a large amount far from home, mostly at night.
pub fn fraud(rng: &mut StdRng) -> ([f32; 3], bool) {
    let amount: f32 = -40.0 * rng.random_range(1e-4f32..1.0).ln();
    let distance: f32 = -10.0 * rng.random_range(1e-4f32..1.0).ln();
    let night = f32::from(u8::from(rng.random_bool(0.2)));
    let odds = 0.04 * amount + 0.15 * distance + night - 8.0;
    ([amount, distance, night], rng.random_bool(f64::from(1.0 / (1.0 + (-odds).exp()))))
}

pub fn write(path: &Path, rows: &[Row], names: [&str; 3]) {
    let column =
        |at: usize| -> ArrayRef { Arc::new(rows.iter().map(|row| row.features[at]).collect::<Float32Array>()) };
    let ids: ArrayRef = Arc::new((0..rows.len()).map(|at| Some(format!("tx-{at}"))).collect::<StringArray>());
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.time)).with_timezone("UTC");
    let labels: ArrayRef = Arc::new(rows.iter().map(|row| row.label).collect::<BooleanArray>());
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("event_id", ids, false),
        ("event_time", Arc::new(times) as ArrayRef, false),
        (names[0], column(0), true),
        (names[1], column(1), true),
        (names[2], column(2), true),
        ("label", labels, true),
    ])
    .unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// A run's folder.
pub struct Folder {
    pub dir: TempDir,
    pub spec: RunSpec,
}

impl Folder {
    pub fn new(rows: &[Row]) -> Self {
        let dir = TempDir::new().unwrap();
        write(&dir.path().join("dataset.parquet"), rows, ["amount", "distance", "night"]);
        let spec = serde_json::json!({
            "run": "run-1", "line": "card-fraud", "version": 2, "created": 1_700_000_000_000_000i64, "seed": 7,
            "dataset": "dataset.parquet", "view": VIEW, "split": {"validation_days": 4, "test_days": 4},
        });
        let mut spec: RunSpec = serde_json::from_value(spec).unwrap();
        spec.model = ModelSpec { hidden: vec![16, 8], epochs: 6, batch: 512, ..ModelSpec::default() };
        Self { dir, spec }
    }

    pub fn train(&self) -> Result<RunResult, TrainError> {
        self.train_watched(&mut |_: &_| true)
    }

    pub fn train_watched(&self, progress: &mut dyn cloud_hub_trainer::Progress) -> Result<RunResult, TrainError> {
        let spec = serde_json::to_vec(&self.spec).unwrap();
        std::fs::write(self.dir.path().join(SPEC_FILE), spec).unwrap();
        run(self.dir.path(), progress)
    }

    pub fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.dir.path().join(PACKAGE_FILE)).unwrap()
    }

    pub fn package(&self) -> Package {
        Package::read(&self.bytes()).unwrap()
    }

    pub fn has_outcome(&self) -> bool {
        self.dir.path().join(PACKAGE_FILE).exists() || self.dir.path().join(RESULT_FILE).exists()
    }
}
