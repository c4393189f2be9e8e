//! Trains the board's anomaly model on the simulated machine, healthy, and makes it int8.
//!
//! The hub's trainer will do this from recorded windows; until then the board has a model that was truly learnt, and
//! whoever changes the simulation or the features can make a new one.

use std::error::Error;

use tributary_node_simulation::Machine;
use tributary_signal::{Analysis, Model, Window};

const LENGTH: usize = 512;
const HOP: usize = 256;
const BANDS: usize = 8;
const INPUTS: usize = 4 + BANDS;
const HIDDEN: usize = 6;
/// Steps of int8 that one unit of training stands for.
const UNIT: f64 = 64.0;

type Input = [u16; INPUTS];

/// The windows of all axes of a machine, as a model sees them.
fn windows(seed: u32, wears_after: Option<u32>, from: usize, count: usize) -> Vec<Input> {
    let mut machine = Machine::new(seed, wears_after);
    let analysis = Analysis::<BANDS>::even(LENGTH).expect("even bands");
    let mut axes = [(); 3].map(|()| Window::<i16, LENGTH>::new(HOP).expect("a hop"));
    let (mut inputs, mut complete) = (Vec::new(), 0);
    while complete < from + count {
        let mut full = false;
        for (window, value) in axes.iter_mut().zip(machine.sample()) {
            full = window.push(value);
        }
        if !full {
            continue;
        }
        complete += 1;
        if complete <= from {
            continue;
        }
        for window in &axes {
            let (mut samples, mut input, mut at) = ([0; LENGTH], [0; INPUTS], 0);
            window.copy_to(&mut samples);
            analysis.features(&mut samples).inputs(|number| {
                input[at] = number;
                at += 1;
            });
            inputs.push(input);
        }
    }
    inputs
}

struct Net {
    centers: [f64; INPUTS],
    scales: [f64; INPUTS],
    hidden: [[f64; INPUTS]; HIDDEN],
    hidden_bias: [f64; HIDDEN],
    output: [[f64; HIDDEN]; INPUTS],
    output_bias: [f64; INPUTS],
}

impl Net {
    /// Scaled so that sixteen steps of int8 are one standard deviation of healthy windows.
    fn new(data: &[Input]) -> Self {
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

    /// The score in floating point, in squared steps of int8.
    fn score(&self, input: &Input) -> f64 {
        let x = self.shown(input);
        let (_, y) = self.run(&x);
        x.iter().zip(y).map(|(x, y)| ((x - y) * UNIT).powi(2)).sum()
    }

    /// Stochastic gradient descent on the squared distance.
    fn learn(&mut self, data: &[Input]) {
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
    fn quantized(&self, data: &[Input], threshold: u32) -> Vec<u8> {
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

/// Trains, says how good the model is, and writes it.
pub fn write(path: &str) -> Result<(), Box<dyn Error>> {
    let healthy: Vec<Input> = (0..40).flat_map(|seed| windows(1000 + seed, None, 0, 24)).collect();
    let (learnt, chosen) = healthy.split_at(healthy.len() * 3 / 4);
    let mut net = Net::new(learnt);
    net.learn(learnt);
    let draft = net.quantized(learnt, 0);
    let model = Model::read(&draft, INPUTS)?;
    // Half more than the strangest healthy window of machines that were not learnt from.
    let worst = chosen.iter().map(|input| model.score(input)).max().unwrap_or(0);
    let bytes = net.quantized(learnt, worst + worst / 2);
    let model = Model::read(&bytes, INPUTS)?;

    let held_out: Vec<Input> = (0..100).flat_map(|seed| windows(5000 + seed, None, 0, 24)).collect();
    let alarms = held_out.iter().filter(|input| model.score(*input) > model.threshold()).count();
    let distance: f64 =
        held_out.iter().map(|input| (f64::from(model.score(input)).sqrt() - net.score(input).sqrt()).abs()).sum();
    println!("{} bytes; threshold {}", bytes.len(), model.threshold());
    println!("healthy windows of 100 other machines: {alarms} of {} over the threshold", held_out.len());
    println!("int8 against 64-bit floating point: distance {:.2} steps on average", distance / held_out.len() as f64);
    // Wear grows by one count every 40 samples: from window to window by 6.4 counts of 3.9 mg.
    for after in [2, 4, 8, 16, 32] {
        let found = (0..50_u32).filter(|seed| {
            let worn = windows(7000 + seed, Some(0), after, 1);
            worn.iter().any(|input| model.score(input) > model.threshold())
        });
        println!(
            "knocks of {:>4} mg: found on {} of 50 machines",
            (after * HOP + LENGTH) / 40 * 39 / 10,
            found.count()
        );
    }
    std::fs::write(path, bytes)?;
    Ok(())
}
