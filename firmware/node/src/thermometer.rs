//! What a node needs of a thermometer.

use embedded_hal::i2c::I2c;
use lm75::{Lm75, ic};

/// A thermometer.
pub trait Thermometer {
    /// Hundredths of a degree Celsius; `None` when it does not answer.
    fn read(&mut self) -> Option<i16>;
}

/// A node without one.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoThermometer;

impl Thermometer for NoThermometer {
    fn read(&mut self) -> Option<i16> {
        None
    }
}

impl<B: I2c> Thermometer for Lm75<B, ic::Lm75> {
    fn read(&mut self) -> Option<i16> {
        // The part gives half degrees, so nothing is rounded.
        self.read_temperature().ok().map(|celsius| (celsius * 100.0) as i16)
    }
}
