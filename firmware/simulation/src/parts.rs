//! An ADXL345 and an LM75 on one bus.

use embedded_hal::i2c::{ErrorKind, ErrorType, I2c, NoAcknowledgeSource, Operation};

use crate::Machine;

/// What is wrong with the accelerometer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nobody answers at its address.
    Missing,
    /// It answers with its last values, for ever.
    Stuck,
}

/// Both parts, as their data sheets say they answer.
#[derive(Debug, Clone)]
pub struct Parts {
    machine: Machine,
    /// What is wrong with it now.
    pub fault: Option<Fault>,
    registers: [u8; 0x3a],
    pointer: u8,
    celsius_halves: i16,
}

const ACCELEROMETER: u8 = 0x1d;
const THERMOMETER: u8 = 0x48;
const POWER_CONTROL: usize = 0x2d;
const DATA: core::ops::Range<usize> = 0x32..0x38;

impl Parts {
    /// On this machine, in a room of 21.5 °C.
    pub fn new(machine: Machine) -> Self {
        let mut registers = [0; 0x3a];
        registers[0] = 0xe5;
        Self { machine, fault: None, registers, pointer: 0, celsius_halves: 43 }
    }

    fn accelerometer(&mut self, operation: &mut Operation<'_>) {
        match operation {
            Operation::Write(bytes) => {
                if let Some((register, values)) = bytes.split_first() {
                    self.pointer = *register;
                    for (place, value) in self.registers.iter_mut().skip(usize::from(*register)).zip(values.iter()) {
                        *place = *value;
                    }
                }
            }
            Operation::Read(bytes) => {
                if usize::from(self.pointer) == DATA.start {
                    self.measure();
                }
                for (offset, byte) in bytes.iter_mut().enumerate() {
                    *byte = self.registers.get(usize::from(self.pointer) + offset).copied().unwrap_or(0);
                }
            }
        }
    }

    /// Each reading is of the next sample: the one who asks decides when that is.
    fn measure(&mut self) {
        let measuring = self.registers[POWER_CONTROL] & 0x08 != 0;
        if measuring && self.fault != Some(Fault::Stuck) {
            let values = self.machine.sample();
            for (place, byte) in
                self.registers[DATA].iter_mut().zip(values.iter().flat_map(|value| value.to_le_bytes()))
            {
                *place = byte;
            }
        }
    }

    fn thermometer(&mut self, operation: &mut Operation<'_>) {
        if let Operation::Read(bytes) = operation {
            // Nine bits, the highest first.
            for (byte, value) in bytes.iter_mut().zip((self.celsius_halves << 7).to_be_bytes()) {
                *byte = value;
            }
        }
    }
}

impl ErrorType for Parts {
    type Error = ErrorKind;
}

impl I2c for Parts {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), ErrorKind> {
        match address {
            ACCELEROMETER if self.fault != Some(Fault::Missing) => {
                operations.iter_mut().for_each(|operation| self.accelerometer(operation));
            }
            THERMOMETER => operations.iter_mut().for_each(|operation| self.thermometer(operation)),
            _ => return Err(ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address)),
        }
        Ok(())
    }
}
