//! What a node needs of an accelerometer, and how it judges one.

use tributary_wire::link::Sensor;

/// Why there is no reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SensorError {
    /// The bus gave no answer.
    Bus,
    /// Something else than the expected part answered.
    OtherPart {
        /// What it says it is.
        found: u8,
    },
}

/// An accelerometer with `AXES` axes of 16 bits.
pub trait Accelerometer<const AXES: usize> {
    /// One count in nanometres per second squared.
    const COUNT: u32;

    /// Sets it up to measure at least so many times a second. Called again after an error.
    fn start(&mut self, rate: u32) -> Result<(), SensorError>;

    /// The present values in counts.
    fn read(&mut self) -> Result<[i16; AXES], SensorError>;
}

/// Judges readings: a sensor whose values never move is stuck, however politely it answers.
#[derive(Debug, Clone)]
pub struct SensorWatch<const AXES: usize> {
    last: Option<[i16; AXES]>,
    same: u32,
}

impl<const AXES: usize> Default for SensorWatch<AXES> {
    fn default() -> Self {
        Self { last: None, same: 0 }
    }
}

impl<const AXES: usize> SensorWatch<AXES> {
    /// A quarter of a second at 1 kHz. The noise of the parts we know moves the last bit within a few readings.
    const STUCK: u32 = 256;

    /// Looks at a reading.
    pub fn judge(&mut self, reading: Option<[i16; AXES]>) -> Sensor {
        let Some(values) = reading else {
            *self = Self::default();
            return Sensor::Missing;
        };
        self.same = if self.last == Some(values) { self.same.saturating_add(1) } else { 0 };
        self.last = Some(values);
        if self.same >= Self::STUCK { Sensor::Stuck } else { Sensor::Well }
    }
}
