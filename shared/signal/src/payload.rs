//! A model as it travels: its bytes, and cases that whoever receives it runs before using it. All arithmetic is in
//! integers, so what was computed where it was trained must come out here to the last bit.
//!
//! | bytes | what |
//! |---|---|
//! | 2 | length of the model |
//! | … | the model, as in [`Model`] |
//! | 2·I + 4 each | cases: inputs `u16`, and the score `u32` that they have |

use crate::model::{Model, WrongModel};

/// A model with its cases.
#[derive(Debug, Clone, Copy)]
pub struct ModelPayload<'a> {
    bytes: &'a [u8],
    model: Model<'a>,
    cases: &'a [u8],
}

/// Why a payload cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WrongPayload {
    /// It ends before its model does.
    #[error("the payload ends before its model does")]
    Short,
    /// Its model is none.
    #[error(transparent)]
    Model(#[from] WrongModel),
    /// What follows the model is no case, or not whole ones.
    #[error("{found} bytes of cases; each has {each}, and there is at least one")]
    Cases {
        /// Bytes behind the model.
        found: usize,
        /// Bytes of a case.
        each: usize,
    },
}

impl<'a> ModelPayload<'a> {
    /// Reads a payload whose model takes so many inputs.
    pub fn read(bytes: &'a [u8], inputs: usize) -> Result<Self, WrongPayload> {
        let (length, rest) = bytes.split_first_chunk().ok_or(WrongPayload::Short)?;
        let length = usize::from(u16::from_le_bytes(*length));
        let (bytes, cases) = rest.split_at_checked(length).ok_or(WrongPayload::Short)?;
        let model = Model::read(bytes, inputs)?;
        let each = 2 * inputs + 4;
        if cases.is_empty() || !cases.len().is_multiple_of(each) {
            return Err(WrongPayload::Cases { found: cases.len(), each });
        }
        Ok(Self { bytes, model, cases })
    }

    /// The model.
    pub fn model(&self) -> Model<'a> {
        self.model
    }

    /// The model's own bytes.
    pub fn model_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether every case has the score that it must have.
    pub fn passes(&self) -> bool {
        let inputs = self.model.inputs();
        self.cases.chunks_exact(2 * inputs + 4).all(|case| {
            let (given, score) = case.split_at(2 * inputs);
            let mut numbers = [0; crate::MAX_WIDTH];
            for (number, bytes) in numbers.iter_mut().zip(given.as_chunks::<2>().0) {
                *number = u16::from_le_bytes(*bytes);
            }
            score == self.model.score(&numbers[..inputs]).to_le_bytes()
        })
    }
}
