//! An autoencoder in floating point, and its int8 form. What it cannot give back, it has not seen.

use crate::inputs::{INPUTS, Input};

const HIDDEN: usize = 6;
/// Steps of int8 that one unit of training stands for.
const UNIT: f64 = 64.0;

/// The autoencoder.
#[derive(Debug, Clone)]
pub struct Net {
    centers: [f64; INPUTS],
    scales: [f64; INPUTS],
    hidden: [[f64; INPUTS]; HIDDEN],
    hidden_bias: [f64; HIDDEN],
    output: [[f64; HIDDEN]; INPUTS],
    output_bias: [f64; INPUTS],
}

impl Net {
    /// One that has learnt nothing, scaled so that sixteen steps of int8 are one standard deviation of healthy windows.
    pub fn new(data: &[Input]) -> Self {
        let count = data.len() as f64;
        let mean = |at: usize| data.iter().map(|input| f64::from(input[at])).sum::<f64>() / count;
        let centers: [f64; INPUTS] = std::array::from_fn(|at| mean(at).round());
        let scales = std::array::from_fn(|at| {
            let variance = data.iter().map(|input| (f64::from(input[at]) - centers[at]).powi(2)).sum::<f64>() / count;
            (16.0 / variance.sqrt().max(4.0) * 4096.0).round().min(65_535.0)
        });
        let mut state = 9_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0) * 0.4
        };
        Self {
            centers,
            scales,
            hidden: std::array::from_fn(|_| std::array::from_fn(|_| random())),
            hidden_bias: [0.2; HIDDEN],
            output: std::array::from_fn(|_| std::array::from_fn(|_| random())),
            output_bias: [0.0; INPUTS],
        }
    }

    fn shown(&self, input: &Input) -> [f64; INPUTS] {
        std::array::from_fn(|at| {
            let steps = (f64::from(input[at]) - self.centers[at]) * self.scales[at] / 4096.0;
            steps.clamp(-128.0, 127.0) / UNIT
        })
    }

    fn run(&self, x: &[f64; INPUTS]) -> ([f64; HIDDEN], [f64; INPUTS]) {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let hidden = std::array::from_fn(|row| (dot(&self.hidden[row], x) + self.hidden_bias[row]).max(0.0));
        (hidden, std::array::from_fn(|row| dot(&self.output[row], &hidden) + self.output_bias[row]))
    }

    /// The score in squared steps of int8, in floating point of 32 bits: what an int8 model is measured against.
    pub fn score_f32(&self, input: &Input) -> f32 {
        let dot = |a: &[f64], b: &[f32]| a.iter().zip(b).map(|(a, b)| *a as f32 * b).sum::<f32>();
        let x = self.shown(input).map(|x| x as f32);
        let hidden: [f32; HIDDEN] =
            std::array::from_fn(|row| (dot(&self.hidden[row], &x) + self.hidden_bias[row] as f32).max(0.0));
        let y = (0..INPUTS).map(|row| dot(&self.output[row], &hidden) + self.output_bias[row] as f32);
        x.iter().zip(y).map(|(x, y)| ((x - y) * UNIT as f32).powi(2)).sum()
    }

    /// Stochastic gradient descent on the squared distance.
    pub fn learn(&mut self, data: &[Input]) {
        for round in 0..60 {
            let rate = 0.05 / (1.0 + f64::from(round) / 6.0);
            for step in 0..data.len() {
                let x = self.shown(&data[(step * 7919 + round as usize) % data.len()]);
                let (hidden, y) = self.run(&x);
                let error: [f64; INPUTS] = std::array::from_fn(|at| y[at] - x[at]);
                let back: [f64; HIDDEN] = std::array::from_fn(|at| {
                    if hidden[at] > 0.0 { (0..INPUTS).map(|row| error[row] * self.output[row][at]).sum() } else { 0.0 }
                });
                let outputs = self.output.iter_mut().zip(&mut self.output_bias).zip(error);
                for ((row, bias), error) in outputs {
                    row.iter_mut().zip(hidden).for_each(|(weight, hidden)| *weight -= rate * error * hidden);
                    *bias -= rate * error;
                }
                let hiddens = self.hidden.iter_mut().zip(&mut self.hidden_bias).zip(back);
                for ((row, bias), back) in hiddens {
                    row.iter_mut().zip(x).for_each(|(weight, x)| *weight -= rate * back * x);
                    *bias -= rate * back;
                }
            }
        }
    }

    /// The bytes of `tributary_signal::Model`.
    pub fn quantized(&self, data: &[Input], threshold: u32) -> Vec<u8> {
        let mut bytes = b"TSM1".to_vec();
        bytes.extend([INPUTS as u8, HIDDEN as u8]);
        bytes.extend(threshold.to_le_bytes());
        bytes.extend(self.centers.iter().flat_map(|center| (*center as i16).to_le_bytes()));
        bytes.extend(self.scales.iter().flat_map(|scale| (*scale as u16).to_le_bytes()));
        let largest = |numbers: &mut dyn Iterator<Item = f64>| {
            numbers.fold(1e-9, |largest: f64, number| largest.max(number.abs()))
        };
        let hidden = largest(&mut data.iter().flat_map(|input| self.run(&self.shown(input)).0));
        // Room for what is stranger than anything healthy.
        let hidden_unit = 127.0 / (2.0 * hidden);
        let unit = 127.0 / largest(&mut self.hidden.iter().flatten().copied());
        let rows = self.hidden.iter().flatten().map(|weight| weight * unit);
        layer(&mut bytes, hidden_unit / (unit * UNIT), self.hidden_bias.iter().map(|bias| bias * unit * UNIT), rows);
        let unit = 127.0 / largest(&mut self.output.iter().flatten().copied());
        let rows = self.output.iter().flatten().map(|weight| weight * unit);
        layer(
            &mut bytes,
            UNIT / (unit * hidden_unit),
            self.output_bias.iter().map(|bias| bias * unit * hidden_unit),
            rows,
        );
        bytes
    }
}

fn layer(bytes: &mut Vec<u8>, factor: f64, biases: impl Iterator<Item = f64>, weights: impl Iterator<Item = f64>) {
    let shift = (0..31).take_while(|shift| factor * f64::from(1_u32 << (shift + 1)) < 1.0).count();
    let multiplier = (factor * f64::from(1_u32 << shift) * 2_f64.powi(31)).round();
    bytes.extend((multiplier as i32).to_le_bytes());
    bytes.push(shift as u8);
    bytes.extend(biases.flat_map(|bias| (bias.round() as i32).to_le_bytes()));
    bytes.extend(weights.map(|weight| weight.round() as i8 as u8));
}
