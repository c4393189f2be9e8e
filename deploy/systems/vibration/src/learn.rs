//! Learning from healthy windows, and what goes to a node.

use tributary_signal::{Model, ModelPayload, WrongModel};

use crate::inputs::{INPUTS, Input};
use crate::net::Net;

/// Fewer windows than this say nothing about what healthy is.
const FEWEST: usize = 100;
/// Cases that a node runs before it takes the model.
const CASES: usize = 8;

/// A model that was learnt, in both its forms.
#[derive(Debug, Clone)]
pub struct Learnt {
    net: Net,
    model: Vec<u8>,
    cases: Vec<Input>,
}

/// Why nothing was learnt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LearnError {
    /// Too few windows.
    #[error("{found} healthy windows; at least {FEWEST} are needed")]
    Few {
        /// How many there are.
        found: usize,
    },
    /// What was made of it is no model.
    #[error("the int8 form cannot be read back")]
    Model(#[from] WrongModel),
}

/// How far the int8 form is from the one in 32-bit floating point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parity {
    /// Distance of the square roots of the scores, on average, in steps of int8.
    pub mean: f64,
    /// The largest.
    pub largest: f64,
    /// Windows on which both decide the same, of all.
    pub agree: (usize, usize),
}

/// Learns from the first three quarters of healthy windows in order of time. The threshold lies half above the strangest
/// of all of them, so also of those that were not learnt from.
pub fn learn(healthy: &[Input]) -> Result<Learnt, LearnError> {
    if healthy.len() < FEWEST {
        return Err(LearnError::Few { found: healthy.len() });
    }
    let (learnt, chosen) = healthy.split_at(healthy.len() * 3 / 4);
    let mut net = Net::new(learnt);
    net.learn(learnt);
    let draft = net.quantized(learnt, 0);
    let model = Model::read(&draft, INPUTS)?;
    let worst = healthy.iter().map(|input| model.score(input)).max().unwrap_or(0);
    let model = net.quantized(learnt, worst + worst / 2);
    // Some that it knows, and one that nothing healthy is like.
    let cases = chosen.iter().step_by(chosen.len().div_ceil(CASES - 1)).copied().chain([[4000; INPUTS]]).collect();
    Ok(Learnt { net, model, cases })
}

impl Learnt {
    /// The int8 model's bytes.
    pub fn model_bytes(&self) -> &[u8] {
        &self.model
    }

    /// The int8 model.
    pub fn model(&self) -> Result<Model<'_>, WrongModel> {
        Model::read(&self.model, INPUTS)
    }

    /// What goes to a node: the model and its cases.
    pub fn payload(&self) -> Result<Vec<u8>, WrongModel> {
        let model = self.model()?;
        let mut bytes = (self.model.len() as u16).to_le_bytes().to_vec();
        bytes.extend(&self.model);
        for case in &self.cases {
            bytes.extend(case.iter().flat_map(|input| input.to_le_bytes()));
            bytes.extend(model.score(case).to_le_bytes());
        }
        debug_assert!(ModelPayload::read(&bytes, INPUTS).is_ok_and(|payload| payload.passes()));
        Ok(bytes)
    }

    /// Compares the int8 form with 32-bit floating point on these windows.
    pub fn parity(&self, inputs: &[Input]) -> Result<Parity, WrongModel> {
        let model = self.model()?;
        let (mut sum, mut largest, mut agree) = (0.0, 0.0_f64, 0);
        for input in inputs {
            let (int8, float) = (model.score(input), self.net.score_f32(input));
            let distance = (f64::from(int8).sqrt() - f64::from(float).sqrt()).abs();
            (sum, largest) = (sum + distance, largest.max(distance));
            agree += usize::from((int8 > model.threshold()) == (float > model.threshold() as f32));
        }
        Ok(Parity { mean: sum / inputs.len().max(1) as f64, largest, agree: (agree, inputs.len()) })
    }
}
