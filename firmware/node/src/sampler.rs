//! What happens in the timer interrupt: a reading, at its time, into a queue.

use heapless::spsc::Producer;
use tributary_wire::link::Sensor;

use crate::accelerometer::{Accelerometer, SensorWatch};
use crate::thermometer::Thermometer;

/// What the sensors said at one tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading<const AXES: usize> {
    /// Number of the tick; a hole means that the queue was full.
    pub number: u32,
    /// Microseconds since the start.
    pub uptime: u64,
    /// Counts, when the accelerometer answered.
    pub values: Option<[i16; AXES]>,
    /// How the accelerometer is.
    pub sensor: Sensor,
    /// The last temperature in hundredths of a degree Celsius.
    pub temperature: Option<i16>,
}

/// Reads the sensors at every tick.
#[derive(Debug)]
pub struct Sampler<A, T, const AXES: usize> {
    accelerometer: A,
    thermometer: T,
    watch: SensorWatch<AXES>,
    started: bool,
    rate: u32,
    number: u32,
    temperature: Option<i16>,
}

impl<A: Accelerometer<AXES>, T: Thermometer, const AXES: usize> Sampler<A, T, AXES> {
    /// Nothing is asked of the sensors before the first tick.
    pub fn new(accelerometer: A, thermometer: T, rate: u32) -> Self {
        Self {
            accelerometer,
            thermometer,
            watch: SensorWatch::default(),
            started: false,
            rate: rate.max(1),
            number: 0,
            temperature: None,
        }
    }

    /// Ticks come so often from now on.
    pub fn set_rate(&mut self, rate: u32) {
        self.rate = rate.max(1);
        self.started = false;
    }

    /// Called at every tick, `uptime` microseconds after the start. A full queue loses the reading; the hole in the numbers shows it.
    pub fn tick(&mut self, uptime: u64, queue: &mut Producer<'_, Reading<AXES>>) {
        self.number = self.number.wrapping_add(1);
        // A sensor that does not answer is tried once a second: an address nobody answers can hold a bus for long.
        let second = self.number.is_multiple_of(self.rate);
        if !self.started && (second || self.number == 1) {
            self.started = self.accelerometer.start(self.rate).is_ok();
        }
        let values = if self.started { self.accelerometer.read().ok() } else { None };
        self.started &= values.is_some();
        if second || self.number == 1 {
            self.temperature = self.thermometer.read();
        }
        let (number, temperature) = (self.number, self.temperature);
        let _ = queue.enqueue(Reading { number, uptime, values, sensor: self.watch.judge(values), temperature });
    }
}
