//! The physics: a shaft that is never quite balanced, a load that varies, and a bearing whose outer race breaks out.
//!
//! Each roller that passes the defect strikes it: an impulse that makes the housing ring at its own frequency and fade
//! (P. D. McFadden and J. D. Smith, *Model for the vibration produced by a single point defect in a rolling element
//! bearing*, 1984). Rollers slip, so the strikes are never quite periodic (J. Antoni and R. B. Randall, 2003). A spall
//! grows by fatigue, the faster the larger it is: its blows grow exponentially from its beginning on.

use std::f64::consts::TAU;

/// The geometry of a bearing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bearing {
    /// Rolling elements.
    pub rollers: u32,
    /// Diameter of one by that of the circle of their centres.
    pub ratio: f64,
    /// Contact angle in radians.
    pub angle: f64,
}

impl Bearing {
    /// The deep-groove ball bearing 6205: nine balls of 7.94 mm on a circle of 39.04 mm.
    pub const BALL_6205: Self = Self { rollers: 9, ratio: 7.94 / 39.04, angle: 0.0 };

    /// How often rollers pass a point of the outer race in one turn of the shaft.
    pub fn outer_race(&self) -> f64 {
        f64::from(self.rollers) / 2.0 * (1.0 - self.ratio * self.angle.cos())
    }

    /// The same for the inner race.
    pub fn inner_race(&self) -> f64 {
        f64::from(self.rollers) / 2.0 * (1.0 + self.ratio * self.angle.cos())
    }
}

/// A machine and how it wears.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VibrationConfig {
    /// Chance begins here.
    pub seed: u64,
    /// Samples per second.
    pub rate: f64,
    /// Turns of the shaft per second, without load.
    pub shaft: f64,
    /// Its bearing.
    pub bearing: Bearing,
    /// How the housing rings: in Hz …
    pub resonance: f64,
    /// … and how fast that fades, as a part of critical damping.
    pub damping: f64,
    /// Amplitude of the shaft's unbalance in m/s².
    pub unbalance: f64,
    /// Standard deviation of the noise in m/s².
    pub noise: f64,
    /// Seconds after which the outer race begins to break out; never, if `None`.
    pub wears_after: Option<f64>,
    /// Seconds in which the blows then become ten times as strong.
    pub tenfold: f64,
}

impl Default for VibrationConfig {
    /// A pump at 1480 turns a minute that never wears, sampled at 1 kHz.
    fn default() -> Self {
        Self {
            seed: 1,
            rate: 1000.0,
            shaft: 24.67,
            bearing: Bearing::BALL_6205,
            resonance: 410.0,
            damping: 0.06,
            unbalance: 2.3,
            noise: 0.16,
            wears_after: None,
            tenfold: 600.0,
        }
    }
}

/// The first blows of a defect, in m/s².
const FIRST_BLOW: f64 = 0.15;
/// No blow is stronger: by then the machine has stopped.
const LAST_BLOW: f64 = 80.0;
const GRAVITY: f64 = 9.806_65;

/// Vibration, sample after sample.
#[derive(Debug, Clone)]
pub struct Vibration {
    config: VibrationConfig,
    chance: u64,
    samples: u64,
    /// Turns of the shaft, and rollers past the defect, since the beginning.
    turns: f64,
    next_strike: f64,
    /// Between idle and full, wandering.
    load: f64,
    /// The housing's ringing, now and one sample ago.
    ring: [f64; 2],
}

impl Vibration {
    /// A machine that begins to turn.
    pub fn new(config: VibrationConfig) -> Self {
        let mut vibration = Self {
            config,
            chance: config.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            samples: 0,
            turns: 0.0,
            next_strike: 0.0,
            load: 0.5,
            ring: [0.0; 2],
        };
        vibration.turns = vibration.uniform();
        vibration
    }

    /// How strong a blow is now, in m/s².
    pub fn blow(&self) -> f64 {
        let Some(after) = self.config.wears_after else { return 0.0 };
        let worn = self.samples as f64 / self.config.rate - after;
        if worn <= 0.0 { 0.0 } else { (FIRST_BLOW * 10_f64.powf(worn / self.config.tenfold)).min(LAST_BLOW) }
    }

    /// Across, along and, with gravity, down, in m/s².
    pub fn sample(&mut self) -> [f64; 3] {
        let config = self.config;
        let step = 1.0 / config.rate;
        // A load that wanders through its range in minutes, and slows the motor by up to two in a hundred.
        self.load = (self.load + self.normal() * 0.1 * step.sqrt()).clamp(0.0, 1.0);
        self.turns += config.shaft * (1.0 - 0.02 * self.load) * step;
        self.samples += 1;
        let mut struck = 0.0;
        let passed = self.turns * config.bearing.outer_race();
        if passed >= self.next_strike {
            // Rollers slip by about a hundredth of their distance, and strike harder under load.
            self.next_strike = passed.floor() + 1.0 + 0.01 * self.normal();
            struck = self.blow() * (0.6 + 0.8 * self.load) * (1.0 + 0.2 * self.normal());
        }
        // A damped oscillator, sampled exactly.
        let omega = TAU * config.resonance;
        let decay = (-config.damping * omega * step).exp();
        let turn = omega * (1.0 - config.damping.powi(2)).sqrt() * step;
        let ring = 2.0 * decay * turn.cos() * self.ring[0] - decay * decay * self.ring[1] + struck;
        self.ring = [ring, self.ring[0]];
        let (first, second) = ((TAU * self.turns).sin(), (2.0 * TAU * self.turns).sin());
        let turning = config.unbalance * (first + 0.3 * second);
        let [a, b, c] = [self.normal(), self.normal(), self.normal()].map(|noise| noise * config.noise);
        let quarter = config.unbalance * 0.8 * (TAU * self.turns).cos();
        [turning + ring + a, 0.25 * turning + 0.33 * ring + b, GRAVITY + quarter + 0.5 * ring + c]
    }

    /// What a converter makes of it, one count of which is so many nm/s².
    pub fn counts(&mut self, count: u32) -> [i16; 3] {
        let count = f64::from(count) * 1e-9;
        self.sample().map(|value| (value / count).round() as i16)
    }

    fn uniform(&mut self) -> f64 {
        self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.chance >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// Box and Muller.
    fn normal(&mut self) -> f64 {
        let (radius, angle) = (self.uniform(), self.uniform());
        (-2.0 * radius.ln()).sqrt() * (TAU * angle).cos()
    }
}
