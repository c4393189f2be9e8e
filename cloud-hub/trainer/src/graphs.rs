//! The two graphs of a package, proved equal to the net and held against the accuracy limit.

use tributary_inference::onnx::Graph;
use tributary_inference::quantize::{Options, Range, to_qdq};
use tributary_inference::{Engine, load_cpu};

use crate::calibrate::Calibration;
use crate::error::TrainError;
use crate::export;
use crate::fit::{Fitted, Rows};
use crate::result::QuantizationResult;
use crate::spec::{Metric, QuantizationSpec};
use crate::truth::Truth;

/// A graph, its file and the device's engine over it.
pub struct Runnable {
    /// As built.
    pub graph: Graph,
    /// Its file.
    pub onnx: Vec<u8>,
    engine: Box<dyn Engine>,
}

/// Exported probabilities may differ from burn's by this: rounding of f32, no more.
pub const EXPORT_TOLERANCE: f64 = 1e-4;
/// Rows over which burn and the engine are compared.
const COMPARED_ROWS: usize = 4096;
/// Rows that calibrate the ranges of activations; the plain evaluator that runs them is slow.
const CALIBRATION_ROWS: usize = 512;

impl Runnable {
    /// Loads a graph into the engine that devices run.
    pub fn new(graph: Graph) -> Result<Self, TrainError> {
        let onnx = graph.to_bytes().map_err(|error| TrainError::Graph(chain(&error)))?;
        let engine = load_cpu(&onnx, graph.width).map_err(|error| TrainError::Graph(chain(&error)))?;
        Ok(Self { graph, onnx, engine })
    }

    /// One output per row.
    pub fn predict(&self, rows: &[f32]) -> Result<Vec<f32>, TrainError> {
        let mut out = Vec::new();
        let run = self.engine.predict(rows, rows.len() / self.graph.width, &mut out);
        run.map_err(|error| TrainError::Graph(chain(&error)))?;
        Ok(out)
    }
}

/// Exports the net and checks that the engine computes what burn computes.
pub fn exported(fitted: &Fitted, calibration: Calibration, rows: &[f32]) -> Result<Runnable, TrainError> {
    let width = fitted.preparation.width;
    let graph = export::graph("f32", &fitted.preparation, &fitted.net.layers(), calibration);
    let runnable = Runnable::new(graph)?;
    let rows = &rows[..rows.len().min(COMPARED_ROWS * width)];
    let outputs = runnable.predict(rows)?;
    for (row, (logit, output)) in fitted.logits(rows, width).iter().zip(outputs).enumerate() {
        let found = (calibration.probability(*logit) - f64::from(output)).abs();
        // Written so that not a number fails.
        let close = found <= EXPORT_TOLERANCE;
        if !close {
            return Err(TrainError::Export { row, found, allowed: EXPORT_TOLERANCE });
        }
    }
    Ok(runnable)
}

/// The int8 form, its ranges calibrated on training rows.
pub fn quantized(graph: &Graph, training: Rows<'_>) -> Result<Runnable, TrainError> {
    let (rows, count) = calibration_rows(training, graph.width);
    let options = Options { range: Range::MinMax, ..Options::default() };
    let mut int8 = to_qdq(graph, &rows, count, &options).map_err(|error| TrainError::Graph(chain(&error)))?;
    int8.name = "int8".to_owned();
    Runnable::new(int8)
}

/// Half positives (as far as there are): they reach the ends of the ranges, and are too rare to appear by chance.
fn calibration_rows(training: Rows<'_>, width: usize) -> (Vec<f32>, usize) {
    let spread = |wanted: bool, most: usize| {
        let of_class: Vec<_> =
            (0..training.truth.labels.len()).filter(|row| training.truth.labels[*row] == wanted).collect();
        let every = of_class.len().div_ceil(most).max(1);
        of_class.into_iter().step_by(every).collect::<Vec<_>>()
    };
    let mut chosen = spread(true, CALIBRATION_ROWS / 2);
    chosen.extend(spread(false, CALIBRATION_ROWS - chosen.len()));
    (chosen.iter().flat_map(|row| &training.features[row * width..][..width]).copied().collect(), chosen.len())
}

/// int8 against f32 on the same rows: whether what it loses is within the limit.
pub fn judge(
    spec: QuantizationSpec,
    f32_outputs: &[f32],
    int8_outputs: &[f32],
    truth: Truth<'_>,
) -> QuantizationResult {
    let score = |outputs: &[f32]| match spec.metric {
        Metric::AucRoc => truth.auc_roc(outputs),
        Metric::AveragePrecision => truth.average_precision(outputs),
    };
    let (f32_score, int8_score) = (score(f32_outputs).unwrap_or(0.0), score(int8_outputs).unwrap_or(0.0));
    let lost = f32_score - int8_score;
    let passed = lost <= spec.accuracy_limit;
    let name = spec.metric.name();
    let reason = if passed {
        let change = if lost > 0.0 { format!("loses {lost:.4}") } else { format!("loses no ({:+.4})", -lost) };
        format!("int8 ships: it {change} {name} on the validation rows, allowed is {}", spec.accuracy_limit)
    } else {
        format!(
            "f32 ships: int8 would lose {lost:.4} {name} on the validation rows, allowed is {}",
            spec.accuracy_limit
        )
    };
    QuantizationResult {
        metric: spec.metric,
        f32: f32_score,
        int8: int8_score,
        accuracy_limit: spec.accuracy_limit,
        passed,
        reason,
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
