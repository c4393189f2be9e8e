//! A machine on its bearings: two harmonics of the shaft, noise, and knocks that ring as a bearing wears.

/// Steps of a turn in [`sine`].
const TURN: u32 = 1 << 16;
/// The shaft's turn a sample, at 1000 samples a second: 24.7 Hz.
const SHAFT: u32 = 1619;
/// An outer race with nine rollers is passed 3.57 times a turn.
const PASS: u32 = SHAFT * 357 / 100;

/// What the accelerometer feels, sample after sample.
#[derive(Debug, Clone)]
pub struct Machine {
    chance: u32,
    shaft: u32,
    pass: u32,
    ring: i32,
    /// Strength of the knocks, in counts.
    wear: i32,
    samples: u32,
    wears_after: Option<u32>,
}

impl Machine {
    /// A healthy machine. `wears_after` so many samples its bearing begins to wear, and gets worse with every one.
    pub fn new(seed: u32, wears_after: Option<u32>) -> Self {
        Self { chance: seed | 1, shaft: seed << 3, pass: 0, ring: 0, wear: 0, samples: 0, wears_after }
    }

    /// Counts of 3.9 mg on three axes: across, along and, with gravity, down.
    pub fn sample(&mut self) -> [i16; 3] {
        self.samples = self.samples.saturating_add(1);
        if let Some(after) = self.wears_after {
            self.wear = (self.samples.saturating_sub(after) / 40).min(400) as i32;
        }
        // The load changes a little: the shaft is never exactly as fast as before.
        self.shaft = self.shaft.wrapping_add(SHAFT + self.random() % 8);
        let before = self.pass;
        self.pass = self.pass.wrapping_add(PASS + self.random() % 24);
        if before % TURN > self.pass % TURN {
            self.ring = self.wear + self.wear * (self.random() % 64) as i32 / 128;
        }
        // Rings at nearly half the sampling rate and fades within ten samples.
        self.ring = -self.ring * 13 / 16;
        let (first, second) = (sine(self.shaft), sine(self.shaft.wrapping_mul(2)));
        let turning = (first * 60 + second * 18) >> 15;
        let across = turning + self.ring + self.noise();
        let along = (turning >> 2) + self.ring / 3 + self.noise();
        let down = 256 + ((sine(self.shaft.wrapping_add(TURN / 4)) * 50) >> 15) + self.ring / 2 + self.noise();
        [across as i16, along as i16, down as i16]
    }

    /// About normal, with a standard deviation of 4 counts.
    fn noise(&mut self) -> i32 {
        (0..4).map(|_| (self.random() % 15) as i32 - 7).sum::<i32>() / 2
    }

    fn random(&mut self) -> u32 {
        // Marsaglia's xorshift.
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 17;
        self.chance ^= self.chance << 5;
        self.chance
    }
}

/// About 2¹⁵ times the sine (Bhaskara's formula, within 0.2 %).
fn sine(turn: u32) -> i32 {
    let half = (turn % (TURN / 2)) as i64;
    let product = half * (i64::from(TURN / 2) - half);
    let size = (16 * product * 32_767 / (5 * (1 << 30) - 4 * product)) as i32;
    if turn % TURN < TURN / 2 { size } else { -size }
}
