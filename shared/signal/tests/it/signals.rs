//! Signals that tests share. Chance is a seed.

/// A linear congruential generator (Knuth's MMIX constants): the same numbers everywhere, without a library.
pub struct Chance(pub u64);

impl Chance {
    /// From -1 to 1.
    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }

    /// Roughly normal, with a standard deviation of 1: twelve uniform numbers.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.next()).sum::<f64>() / 2.0
    }
}

/// A sine of so many periods, with an offset.
pub fn sine(length: usize, periods: f64, amplitude: f64, offset: f64) -> Vec<i32> {
    let step = std::f64::consts::TAU * periods / length as f64;
    (0..length).map(|n| (offset + amplitude * (step * n as f64).sin()).round() as i32).collect()
}

/// Normal noise.
pub fn noise(length: usize, deviation: f64, seed: u64) -> Vec<i32> {
    let mut chance = Chance(seed);
    (0..length).map(|_| (chance.normal() * deviation).round() as i32).collect()
}
