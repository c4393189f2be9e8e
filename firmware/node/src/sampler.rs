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
    /// Ticks that never came since the one before: the interrupt was held up for longer than the time between two.
    pub missed: u32,
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
    /// The next tick sets the accelerometer up, whatever second it is in.
    start_now: bool,
    rate: u32,
    number: u32,
    pace: Pace,
    temperature: Option<i16>,
}

/// Finds ticks that never came, by the clock: they have no number that could be missing.
#[derive(Debug, Default)]
struct Pace {
    last: Option<u64>,
    /// How late the ticks are, in microseconds times the rate: [`Self::TICK`] is the time between two.
    late: u64,
}

impl Pace {
    const TICK: u64 = 1_000_000;
    /// A tick may come so much too late, and the next so much too soon, without one being missed.
    const LATE: u64 = Self::TICK / 16 * 15;
    /// No two clocks are equally fast; this much a tick is forgiven.
    const DRIFT: u64 = Self::TICK / 1000;

    /// Ticks that were due since the last one, beside this one.
    fn missed(&mut self, uptime: u64, rate: u32) -> u32 {
        let Some(last) = self.last.replace(uptime) else { return 0 };
        let passed = uptime.saturating_sub(last).saturating_mul(u64::from(rate));
        self.late = self.late.saturating_add(passed).saturating_sub(Self::TICK + Self::DRIFT);
        let missed = self.late.saturating_add(Self::TICK - Self::LATE) / Self::TICK;
        self.late = self.late.saturating_sub(missed.saturating_mul(Self::TICK));
        u32::try_from(missed).unwrap_or(u32::MAX)
    }
}

impl<A: Accelerometer<AXES>, T: Thermometer, const AXES: usize> Sampler<A, T, AXES> {
    /// Nothing is asked of the sensors before the first tick.
    pub fn new(accelerometer: A, thermometer: T, rate: u32) -> Self {
        Self {
            accelerometer,
            thermometer,
            watch: SensorWatch::default(),
            started: false,
            start_now: true,
            rate: rate.max(1),
            number: 0,
            pace: Pace::default(),
            temperature: None,
        }
    }

    /// Ticks come so often from now on.
    pub fn set_rate(&mut self, rate: u32) {
        self.rate = rate.max(1);
        // Not only in the next whole second: a node that does what it was told has no sensor missing.
        (self.started, self.start_now) = (false, true);
        self.pace = Pace::default();
    }

    /// Called at every tick, `uptime` microseconds after the start. A full queue loses the reading; the hole in the numbers shows it.
    pub fn tick(&mut self, uptime: u64, queue: &mut Producer<'_, Reading<AXES>>) {
        self.number = self.number.wrapping_add(1);
        let missed = self.pace.missed(uptime, self.rate);
        // A sensor that does not answer is tried once a second: an address nobody answers can hold a bus for long.
        let second = self.number.is_multiple_of(self.rate);
        if core::mem::take(&mut self.start_now) || second && !self.started {
            self.started = self.accelerometer.start(self.rate).is_ok();
        }
        let values = if self.started { self.accelerometer.read().ok() } else { None };
        self.started &= values.is_some();
        if second || self.number == 1 {
            self.temperature = self.thermometer.read();
        }
        let (number, temperature) = (self.number, self.temperature);
        let _ =
            queue.enqueue(Reading { number, missed, uptime, values, sensor: self.watch.judge(values), temperature });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ticks that are missed at these uptimes, at 1000 a second.
    fn missed(uptimes: impl IntoIterator<Item = u64>) -> u32 {
        let mut pace = Pace::default();
        uptimes.into_iter().map(|uptime| pace.missed(uptime, 1000)).sum()
    }

    #[test]
    fn ticks_that_never_came_are_counted_and_late_ones_are_not() {
        assert_eq!(missed([500, 1500, 2500]), 0);
        assert_eq!(missed([500, 1500, 3500, 4500]), 1);
        assert_eq!(missed([500, 1500, 9500, 10_500, 13_500]), 7 + 2);
        // One comes late, and the next in time.
        assert_eq!(missed((0..1000).map(|tick| tick * 1000 + if tick % 3 == 0 { 900 } else { 0 })), 0);
        // A quarter of all are missed, and the last of all cannot be known.
        assert_eq!(missed((0..4000).filter(|tick| tick % 4 != 3).map(|tick| tick * 1000)), 999);
    }

    #[test]
    fn clocks_that_are_not_equally_fast_miss_nothing() {
        for parts in [999_500, 1_000_500] {
            assert_eq!(missed((0..200_000).map(|tick| tick * parts / 1000)), 0);
        }
        assert!(missed([5, u64::MAX]) > 0, "whatever a clock says");
    }
}
