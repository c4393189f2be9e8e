//! The training loop.

use std::sync::Mutex;
use std::time::Instant;

use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::error::TrainError;
use crate::mlp::Mlp;
use crate::prepare::Preparation;
use crate::progress::Step;
use crate::spec::{ModelSpec, PositiveWeight, Trained};
use crate::start::Start;
use crate::truth::Truth;

/// Rows with their truth.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Row by row.
    pub features: &'a [f32],
    /// What is true of them.
    pub truth: Truth<'a>,
}

/// A trained net and how features reach it.
pub struct Fitted {
    /// First nodes of the graph.
    pub preparation: Preparation,
    /// The rest, with the weights of the best epoch.
    pub net: Mlp,
    /// Counted from 1; 0 when training never beat the untrained net.
    pub best_epoch: usize,
}

/// burn's dropout draws from one generator per process, so two trainings at once would disturb each other's seed.
static DROPOUT: Mutex<()> = Mutex::new(());

/// Trains on `training`; `validation`, when given, decides which epoch is kept and when to stop. `start` takes the place of
/// drawn weights.
pub fn fit(
    spec: &ModelSpec,
    names: &[String],
    training: Rows<'_>,
    validation: Option<Rows<'_>>,
    (seed, start): (u64, Option<&Start>),
    mut report: impl FnMut(&Step) -> Result<(), TrainError>,
) -> Result<Fitted, TrainError> {
    let _turn = DROPOUT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let (plain, device) = (Device::flex(), Device::flex().autodiff());
    device.seed(seed);
    let preparation = match start {
        Some(start) => start.preparation.clone(),
        None => Preparation::fit(training.features, names, &spec.bend, spec.clip)?,
    };
    let rows = preparation.apply(rows_tensor(training.features, names.len(), &device), &device);
    let held = validation.map(|held| preparation.apply(rows_tensor(held.features, names.len(), &plain), &plain));
    let count = training.truth.labels.len();
    let positives = training.truth.positives().max(1.0);
    let negatives = (training.truth.total() - positives).max(1.0);
    let truth = truth_tensor(training.truth, positive_weight(spec.positive_weight, negatives / positives), &device);
    let prior = (positives as f32 / negatives as f32).ln();
    let mut net = match start {
        Some(start) => Mlp::of_layers(&start.layers, spec.dropout, &device),
        None => Mlp::new(preparation.columns(), &spec.hidden, spec.members, spec.dropout, prior, seed, &device),
    };
    let trained = start.map_or(Trained::All, |start| start.trained);
    let mut optimizer = AdamWConfig::new().with_weight_decay(spec.weight_decay).init();

    let batches = count.div_ceil(spec.batch);
    let steps = (batches * spec.epochs) as f64;
    let (mut order, mut rng) = ((0..count as i32).collect::<Vec<_>>(), StdRng::seed_from_u64(seed));
    let mut best = Best { score: f64::NEG_INFINITY, net: net.valid(), epoch: 0 };
    let (began, mut step) = (Instant::now(), 0);
    for epoch in 1..=spec.epochs {
        order.shuffle(&mut rng);
        let mut total = Tensor::<1>::zeros([1], &plain);
        for batch in order.chunks(spec.batch) {
            let batch_rows = Tensor::<1, Int>::from_data(TensorData::new(batch.to_vec(), [batch.len()]), &device);
            let truth = truth.clone().select(0, batch_rows.clone());
            let part = |at: usize| truth.clone().slice([0..batch.len(), at..at + 1]).unsqueeze::<3>();
            let loss = net.loss(rows.clone().select(0, batch_rows), part(0), part(1));
            let gradients = match trained {
                Trained::All => GradientsParams::from_grads(loss.backward(), &net),
                Trained::LastLayer => GradientsParams::from_params(&mut loss.backward(), &net, &net.last_layer()),
            };
            total = total + loss.inner();
            let rate = spec.learning_rate * 0.5 * (1.0 + (std::f64::consts::PI * f64::from(step) / steps).cos());
            net = optimizer.step(rate, net, gradients);
            step += 1;
        }
        let loss = f64::from(total.into_scalar::<f32>()) / (batches * spec.members) as f64;
        if !loss.is_finite() {
            return Err(TrainError::Diverged { epoch, loss });
        }
        let (mut auc, mut average_precision) = (0.0, 0.0);
        let now = net.valid();
        if let (Some(held), Some(Rows { truth, .. })) = (&held, validation) {
            let logits = now.mean_logits(held.clone());
            auc = truth.auc_roc(&logits).unwrap_or(0.5);
            average_precision = truth.average_precision(&logits).unwrap_or(0.0);
        }
        // Both matter: the area moves with the many easy rows, the precision with the few that alarms are raised for.
        let score = auc + average_precision;
        if score > best.score || spec.patience == 0 || held.is_none() {
            best = Best { score, net: now, epoch };
        }
        let seconds_left = began.elapsed().as_secs_f64() / epoch as f64 * (spec.epochs - epoch) as f64;
        report(&Step::Epoch {
            epoch,
            of: spec.epochs,
            loss,
            validation_auc: auc,
            validation_average_precision: average_precision,
            seconds_left,
        })?;
        if spec.patience > 0 && epoch - best.epoch >= spec.patience {
            break;
        }
    }
    Ok(Fitted { preparation, net: best.net, best_epoch: best.epoch })
}

struct Best {
    score: f64,
    net: Mlp,
    epoch: usize,
}

impl Fitted {
    /// What burn computes: the mean logit of each row.
    pub fn logits(&self, features: &[f32], width: usize) -> Vec<f32> {
        let device = Device::flex();
        self.net.mean_logits(self.preparation.apply(rows_tensor(features, width, &device), &device))
    }
}

fn positive_weight(rule: PositiveWeight, balance: f64) -> f32 {
    match rule {
        PositiveWeight::Fixed(weight) => weight as f32,
        PositiveWeight::Root => balance.sqrt() as f32,
        PositiveWeight::Balanced => balance as f32,
    }
}

fn rows_tensor(features: &[f32], width: usize, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(features.to_vec(), [features.len() / width, width]), device)
}

/// Label and weight of each row; the weights have mean 1.
fn truth_tensor(truth: Truth<'_>, positive: f32, device: &Device) -> Tensor<2> {
    let labels = truth.labels;
    let weight = |row: usize| truth.weight(row) as f32 * if labels[row] { positive } else { 1.0 };
    let mean = (0..labels.len()).map(weight).sum::<f32>() / labels.len() as f32;
    let pairs = (0..labels.len()).flat_map(|row| [f32::from(u8::from(labels[row])), weight(row) / mean]);
    Tensor::from_data(TensorData::new(pairs.collect(), [labels.len(), 2]), device)
}
