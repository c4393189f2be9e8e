//! One window in, its features out.

use crate::fourier;
use crate::moments::{Moments, moments};
use crate::{MAX_WINDOW, MIN_WINDOW};

/// Why a window cannot be analysed so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WrongAnalysis {
    /// Not a length that the transform takes.
    #[error("window of {found} samples; a power of two from {MIN_WINDOW} to {MAX_WINDOW} is needed")]
    Length {
        /// What was asked for.
        found: usize,
    },
    /// Bands that are empty, overlap, or go beyond half the sampling rate.
    #[error("band {band} ends before bin {end}; it must end after the last one's end {after} and at most at {limit}")]
    Band {
        /// Which band; the first is 0.
        band: usize,
        /// Its end.
        end: u16,
        /// Where the band before it ends; 1 for the first, which begins after the mean.
        after: u16,
        /// Half the window's length.
        limit: u16,
    },
}

/// What is computed of a window of a set length, with `B` bands. Bin k of a window of N samples taken at f Hz lies at
/// k·f/N Hz.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Analysis<const B: usize> {
    length: usize,
    ends: [u16; B],
}

/// What one window says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features<const B: usize> {
    /// Of its amplitudes.
    pub moments: Moments,
    /// RMS of the alternating part within each band in 2⁻⁸ counts. Their squares add up to the square of the RMS, but
    /// for the Hann window's weights and what lies outside the bands.
    pub bands: [u32; B],
}

impl<const B: usize> Analysis<B> {
    /// Bands that follow each other from bin 1 on, each up to but without its end.
    pub const fn new(length: usize, ends: [u16; B]) -> Result<Self, WrongAnalysis> {
        if !length.is_power_of_two() || length < MIN_WINDOW || length > MAX_WINDOW {
            return Err(WrongAnalysis::Length { found: length });
        }
        let limit = (length / 2) as u16;
        let (mut band, mut after) = (0, 1);
        while band < B {
            let end = ends[band];
            if end <= after || end > limit {
                return Err(WrongAnalysis::Band { band, end, after, limit });
            }
            after = end;
            band += 1;
        }
        Ok(Self { length, ends })
    }

    /// `B` bands of the same width up to half the sampling rate; `B` is at most a quarter of the length.
    pub const fn even(length: usize) -> Result<Self, WrongAnalysis> {
        let mut ends = [0; B];
        let mut band = 0;
        while band < B {
            ends[band] = (length / 2 * (band + 1) / B) as u16;
            band += 1;
        }
        Self::new(length, ends)
    }

    /// The window's length.
    pub const fn length(&self) -> usize {
        self.length
    }

    /// Where each band ends, in bins.
    pub const fn ends(&self) -> &[u16; B] {
        &self.ends
    }

    /// The features of a window. Its samples are overwritten: they are the transform's only memory.
    ///
    /// # Panics
    /// When `samples` is not of the length that this analysis was made for.
    pub fn features(&self, samples: &mut [i32]) -> Features<B> {
        assert_eq!(samples.len(), self.length, "samples of a window");
        let moments = moments(samples);
        let mut bands = [0; B];
        if B > 0 {
            let scale = fourier::prepare(samples, moments.mean, moments.peak);
            fourier::transform(samples);
            let mut bin = 1;
            for (band, end) in bands.iter_mut().zip(self.ends) {
                let mut power = 0;
                while bin < usize::from(end) {
                    power += fourier::power(samples, bin);
                    bin += 1;
                }
                *band = fourier::rms(power, scale);
            }
        }
        Features { moments, bands }
    }
}

impl<const B: usize> Features<B> {
    /// How many numbers a model sees: four beside the bands.
    pub const INPUTS: usize = 4 + B;

    /// Calls `give` with each number that a model sees, in order: the logarithms ([`crate::log2`]) of RMS, crest factor,
    /// kurtosis and zero crossings, then of the bands.
    pub fn inputs(&self, mut give: impl FnMut(u16)) {
        let Moments { rms, crest, kurtosis, crossings, .. } = self.moments;
        for number in [rms, crest, kurtosis, crossings.into()].into_iter().chain(self.bands) {
            give(crate::log2(number));
        }
    }
}
