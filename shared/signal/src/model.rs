//! How unlike the healthy machine a window is: a small int8 autoencoder that has learnt healthy windows only. What it
//! cannot give back, it has not seen.
//!
//! ```text
//! inputs (log₂, 2⁻⁸) ─ center, scale ─► int8 ─ dense, ReLU ─► int8 ─ dense ─► int8    score = Σ (out - in)²
//! ```
//!
//! Arithmetic as in B. Jacob et al., *Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
//! Inference*, 2018: int32 sums, then a multiplier of 31 fraction bits and a shift, rounded to nearest.
//!
//! A model is bytes, so that a `const` in flash and a blob that came over the link are read by the same code:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `TSM1` |
//! | 1, 1 | inputs I, hidden H, each from 1 to [`MAX_WIDTH`] |
//! | 4 | threshold: a score above it is an anomaly |
//! | 2·I | centers, `i16` in the inputs' unit |
//! | 2·I | scales, `u16`: input step of int8 per unit, 2⁻¹² |
//! | 5, 4·H, H·I | hidden layer: multiplier `i32`, shift `u8`; biases `i32`; weights `i8` by row |
//! | 5, 4·I, I·H | output layer: the same |
//!
//! Numbers are little-endian.

/// Most inputs or hidden numbers of a model: its working memory is on the stack.
pub const MAX_WIDTH: usize = 32;
const MAGIC: &[u8; 4] = b"TSM1";
/// Fraction bits of a scale.
const SCALE_BITS: u32 = 12;

/// Why bytes are not a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WrongModel {
    /// They do not begin as one.
    #[error("a model begins with `TSM1`")]
    Magic,
    /// A layer is empty or wider than the working memory.
    #[error("{inputs} inputs and {hidden} hidden numbers; from 1 to {MAX_WIDTH} of each are possible")]
    Width {
        /// Inputs.
        inputs: usize,
        /// Hidden numbers.
        hidden: usize,
    },
    /// Too short or too long.
    #[error("{found} bytes; a model of its widths has {expected}")]
    Length {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// It wants other inputs than the features give.
    #[error("the model takes {found} inputs; the features give {expected}")]
    Inputs {
        /// What the model takes.
        found: usize,
        /// What there is.
        expected: usize,
    },
    /// A multiplier or shift outside what the arithmetic holds.
    #[error("multiplier {multiplier} with shift {shift}; from 0 and up to 31 are possible")]
    Rescale {
        /// The multiplier.
        multiplier: i32,
        /// The shift.
        shift: u8,
    },
}

/// A checked model over somebody's bytes.
#[derive(Debug, Clone, Copy)]
pub struct Model<'a> {
    threshold: u32,
    centers: &'a [u8],
    scales: &'a [u8],
    hidden: Layer<'a>,
    output: Layer<'a>,
}

#[derive(Debug, Clone, Copy)]
struct Layer<'a> {
    multiplier: i32,
    shift: u8,
    biases: &'a [u8],
    weights: &'a [u8],
}

impl<'a> Model<'a> {
    /// Reads and checks a model for so many inputs.
    pub fn read(bytes: &'a [u8], inputs: usize) -> Result<Self, WrongModel> {
        let all = bytes;
        let (magic, bytes) = bytes.split_first_chunk::<4>().ok_or(WrongModel::Magic)?;
        if magic != MAGIC {
            return Err(WrongModel::Magic);
        }
        let wrong_length = |expected| WrongModel::Length { found: all.len(), expected };
        let (head, rest) = bytes.split_first_chunk::<6>().ok_or(wrong_length(10))?;
        let [found, hidden, threshold @ ..] = *head;
        let (found, hidden) = (usize::from(found), usize::from(hidden));
        if !(1..=MAX_WIDTH).contains(&found) || !(1..=MAX_WIDTH).contains(&hidden) {
            return Err(WrongModel::Width { inputs: found, hidden });
        }
        if found != inputs {
            return Err(WrongModel::Inputs { found, expected: inputs });
        }
        let layers = 2 * 5 + 4 * (hidden + inputs) + 2 * hidden * inputs;
        let expected = 10 + 4 * inputs + layers;
        if all.len() != expected {
            return Err(wrong_length(expected));
        }
        let (centers, rest) = rest.split_at(2 * inputs);
        let (scales, rest) = rest.split_at(2 * inputs);
        let (first, second) = rest.split_at(5 + 4 * hidden + hidden * inputs);
        Ok(Self {
            threshold: u32::from_le_bytes(threshold),
            centers,
            scales,
            hidden: Layer::read(first, hidden)?,
            output: Layer::read(second, inputs)?,
        })
    }

    /// A score above this is an anomaly.
    pub fn threshold(&self) -> u32 {
        self.threshold
    }

    /// How many inputs it takes.
    pub fn inputs(&self) -> usize {
        self.centers.len() / 2
    }

    /// The squared distance between `inputs` and what the model gives back, in squared steps of int8. Inputs beyond the
    /// model's are not looked at, missing ones count as their center.
    pub fn score(&self, inputs: &[u16]) -> u32 {
        let (mut shown, mut hidden, mut given) = ([0; MAX_WIDTH], [0; MAX_WIDTH], [0; MAX_WIDTH]);
        let width = self.inputs();
        for ((shown, input), (center, scale)) in
            shown.iter_mut().zip(inputs).zip(pairs(self.centers).zip(pairs(self.scales)))
        {
            let distance = i64::from(*input) - i64::from(i16::from_le_bytes(center));
            *shown = narrow(shifted(distance * i64::from(u16::from_le_bytes(scale)), SCALE_BITS));
        }
        let count = self.hidden.run(&shown[..width], &mut hidden, 0);
        self.output.run(&hidden[..count], &mut given, i8::MIN);
        let squares = shown[..width].iter().zip(&given).map(|(&shown, &given)| {
            let difference = i32::from(shown) - i32::from(given);
            (difference * difference) as u32
        });
        squares.sum()
    }
}

impl<'a> Layer<'a> {
    fn read(bytes: &'a [u8], outputs: usize) -> Result<Self, WrongModel> {
        let (multiplier, rest) = bytes.split_at(4);
        let (shift, rest) = (rest[0], &rest[1..]);
        let multiplier = i32::from_le_bytes([multiplier[0], multiplier[1], multiplier[2], multiplier[3]]);
        if multiplier < 0 || shift > 31 {
            return Err(WrongModel::Rescale { multiplier, shift });
        }
        let (biases, weights) = rest.split_at(4 * outputs);
        Ok(Self { multiplier, shift, biases, weights })
    }

    /// Writes one number per row, none under `floor`; returns how many.
    fn run(&self, inputs: &[i8], outputs: &mut [i8; MAX_WIDTH], floor: i8) -> usize {
        let rows = self.weights.chunks_exact(inputs.len());
        let biases = self.biases.as_chunks::<4>().0;
        for ((output, row), bias) in outputs.iter_mut().zip(rows).zip(biases) {
            let products = row.iter().zip(inputs).map(|(&weight, &input)| i32::from(weight as i8) * i32::from(input));
            // At most 32 products under 2¹⁴ each; a foreign bias may be anything.
            let sum = i32::from_le_bytes(*bias).saturating_add(products.sum());
            let scaled = shifted(i64::from(sum) * i64::from(self.multiplier), 31);
            *output = narrow(shifted(scaled, u32::from(self.shift))).max(floor);
        }
        biases.len()
    }
}

fn pairs(bytes: &[u8]) -> impl Iterator<Item = [u8; 2]> + '_ {
    bytes.as_chunks::<2>().0.iter().copied()
}

/// Divided by 2^`bits`, to nearest, halves upwards.
fn shifted(number: i64, bits: u32) -> i64 {
    match bits {
        0 => number,
        bits => (number + (1 << (bits - 1))) >> bits,
    }
}

fn narrow(number: i64) -> i8 {
    number.clamp(i64::from(i8::MIN), i64::from(i8::MAX)) as i8
}
