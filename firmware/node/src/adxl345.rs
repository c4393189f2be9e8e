//! Analog Devices ADXL345 over I²C (data sheet rev. G). Written here because the published driver for `embedded-hal` 1
//! sets the range from a register it has not addressed, and may so switch on the part's self-test.

use embedded_hal::i2c::I2c;

use crate::accelerometer::{Accelerometer, SensorError};

const DEVICE_ID: u8 = 0x00;
const BANDWIDTH_RATE: u8 = 0x2c;
const POWER_CONTROL: u8 = 0x2d;
const DATA_FORMAT: u8 = 0x31;
const DATA_X0: u8 = 0x32;

const ID: u8 = 0xe5;
/// Full resolution, ±16 g.
const FORMAT: u8 = 0x0b;
const MEASURE: u8 = 0x08;

/// The part behind a bus.
#[derive(Debug)]
pub struct Adxl345<B> {
    bus: B,
    address: u8,
}

impl<B: I2c> Adxl345<B> {
    /// Its address with the pin SDO/ALT high.
    pub const ADDRESS: u8 = 0x1d;
    /// Its address with the pin SDO/ALT low.
    pub const OTHER_ADDRESS: u8 = 0x53;

    /// Talks to nothing yet.
    pub fn new(bus: B, address: u8) -> Self {
        Self { bus, address }
    }

    /// Gives the bus back.
    pub fn release(self) -> B {
        self.bus
    }

    fn write(&mut self, register: u8, value: u8) -> Result<(), SensorError> {
        self.bus.write(self.address, &[register, value]).map_err(|_| SensorError::Bus)
    }

    fn read_from<const N: usize>(&mut self, register: u8) -> Result<[u8; N], SensorError> {
        let mut bytes = [0; N];
        self.bus.write_read(self.address, &[register], &mut bytes).map_err(|_| SensorError::Bus)?;
        Ok(bytes)
    }
}

impl<B: I2c> Accelerometer<3> for Adxl345<B> {
    /// 3.9 mg in full resolution, with g = 9.80665 m/s².
    const COUNT: u32 = 38_245_935;

    fn start(&mut self, rate: u32) -> Result<(), SensorError> {
        let [found] = self.read_from(DEVICE_ID)?;
        if found != ID {
            return Err(SensorError::OtherPart { found });
        }
        // Code 15 is 3200 Hz; each one below is half of it. Never slower than what is asked for.
        let code = (0..=9_u8).find(|step| 3200 >> (step + 1) < rate).map_or(6, |step| 15 - step);
        self.write(BANDWIDTH_RATE, code)?;
        self.write(DATA_FORMAT, FORMAT)?;
        self.write(POWER_CONTROL, MEASURE)
    }

    fn read(&mut self) -> Result<[i16; 3], SensorError> {
        // All six at once: the part then gives values of one moment.
        let bytes: [u8; 6] = self.read_from(DATA_X0)?;
        Ok(core::array::from_fn(|axis| i16::from_le_bytes([bytes[2 * axis], bytes[2 * axis + 1]])))
    }
}
