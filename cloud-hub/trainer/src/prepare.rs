//! What happens to features before the first layer; it becomes the first nodes of the graph.
//!
//! Every feature is taken as it is, and a skewed one a second time, bent: a threshold on an amount is sharp on the
//! linear scale, the ratio of two amounts is a difference of logarithms. Then all are standardised and clipped.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::error::SpecError;
use crate::spec::Bend;

/// Bent features, mean and scale of every prepared column, learnt on the training rows alone.
///
/// The columns: all features, then log(1 + max(x, 0)) of `log`, then the square root of max(x, 0) of `root`.
#[derive(Debug, Clone, PartialEq)]
pub struct Preparation {
    /// Features.
    pub width: usize,
    /// Features taken as logarithms too.
    pub log: Vec<usize>,
    /// Features taken as roots too.
    pub root: Vec<usize>,
    /// Mean of each column.
    pub mean: Vec<f32>,
    /// One over the standard deviation of each column; 0 for a constant one.
    pub scale: Vec<f32>,
    /// Highest and lowest prepared value, in standard deviations.
    pub clip: f32,
}

/// Rows that decide shapes and scales: enough for both, and quick.
const SAMPLE_ROWS: usize = 200_000;
/// A feature that varies less than this is constant; dividing by its deviation would only magnify noise.
const LEAST_DEVIATION: f64 = 1e-6;

impl Preparation {
    /// Learns from `rows` (row by row, one column per name).
    pub fn fit(rows: &[f32], names: &[String], bend: &Bend, clip: f32) -> Result<Self, SpecError> {
        let width = names.len();
        let every = (rows.len() / width).div_ceil(SAMPLE_ROWS).max(1);
        let column = |at: usize| rows.chunks_exact(width).step_by(every).map(move |row| row[at]);
        let (mut log, mut root) = (Vec::new(), Vec::new());
        match bend {
            Bend::None => {}
            Bend::Skewed => {
                for at in 0..width {
                    let low = column(at).fold(f32::MAX, f32::min);
                    let high = column(at).fold(f32::MIN, f32::max);
                    let flag = column(at).all(|x| x == 0.0 || x == 1.0);
                    if low >= 0.0 && !flag && Moments::of(column(at)).skewness > 1.0 {
                        if high > 1.0 { &mut log } else { &mut root }.push(at);
                    }
                }
            }
            Bend::Named { log: wanted_log, root: wanted_root } => {
                let place = |feature: &String| {
                    names
                        .iter()
                        .position(|name| name == feature)
                        .ok_or_else(|| SpecError::UnknownFeature { feature: feature.clone(), known: names.join(", ") })
                };
                log = wanted_log.iter().map(place).collect::<Result<_, _>>()?;
                root = wanted_root.iter().map(place).collect::<Result<_, _>>()?;
            }
        }
        let moments: Vec<_> = (0..width)
            .map(|at| Moments::of(column(at)))
            .chain(log.iter().map(|at| Moments::of(column(*at).map(|x| (x.max(0.0) + 1.0).ln()))))
            .chain(root.iter().map(|at| Moments::of(column(*at).map(|x| x.max(0.0).sqrt()))))
            .collect();
        let mean = moments.iter().map(|moments| moments.mean as f32).collect();
        let scale = moments.iter().map(|moments| moments.scale() as f32).collect();
        Ok(Self { width, log, root, mean, scale, clip })
    }

    /// Columns that reach the first layer.
    pub fn columns(&self) -> usize {
        self.mean.len()
    }

    /// The same as the graph's first nodes, in burn.
    pub fn apply(&self, rows: Tensor<2>, device: &Device) -> Tensor<2> {
        let row = |values: &[f32]| Tensor::<2>::from_data(TensorData::new(values.to_vec(), [1, values.len()]), device);
        let positive = |places: &[usize]| {
            let places: Vec<i32> = places.iter().map(|at| *at as i32).collect();
            let places = TensorData::new(places.clone(), [places.len()]);
            rows.clone().select(1, Tensor::<1, Int>::from_data(places, device)).clamp_min(0.0)
        };
        let mut columns = vec![rows.clone()];
        if !self.log.is_empty() {
            columns.push((positive(&self.log) + 1.0).log());
        }
        if !self.root.is_empty() {
            columns.push(positive(&self.root).sqrt());
        }
        ((Tensor::cat(columns, 1) - row(&self.mean)) * row(&self.scale)).clamp(-self.clip, self.clip)
    }
}

struct Moments {
    mean: f64,
    deviation: f64,
    skewness: f64,
}

impl Moments {
    fn of(column: impl Iterator<Item = f32> + Clone) -> Self {
        let (count, sum) = column.clone().fold((0.0, 0.0), |(count, sum), x| (count + 1.0, sum + f64::from(x)));
        let count = f64::max(count, 1.0);
        let mean = sum / count;
        let (second, third) = column.fold((0.0, 0.0), |(second, third), x| {
            let d = f64::from(x) - mean;
            (second + d * d, third + d * d * d)
        });
        let deviation = (second / count).sqrt();
        let skewness = if deviation < LEAST_DEVIATION { 0.0 } else { third / count / deviation.powi(3) };
        Self { mean, deviation, skewness }
    }

    fn scale(&self) -> f64 {
        if self.deviation < LEAST_DEVIATION { 0.0 } else { 1.0 / self.deviation }
    }
}
