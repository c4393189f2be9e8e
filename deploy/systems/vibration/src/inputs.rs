//! What a model sees of a window.

use tributary_signal::{AMPLITUDE_BITS, Analysis, Features, Moments, RATIO_BITS, Window};

/// Samples of a window, as the nodes of this system take them.
pub const WINDOW: usize = 512;
/// Samples from one window to the next.
pub const HOP: usize = 256;
/// Bands of the spectrum.
pub const BANDS: usize = 8;
/// Axes that are measured.
pub const AXES: usize = 3;
/// Numbers that a model sees.
pub const INPUTS: usize = Features::<BANDS>::INPUTS;

/// One window of one axis as a model sees it.
pub type Input = [u16; INPUTS];

fn input(features: &Features<BANDS>) -> Input {
    let (mut input, mut at) = ([0; INPUTS], 0);
    features.inputs(|number| {
        input[at] = number;
        at += 1;
    });
    input
}

/// The windows of all axes of somebody who samples, without the first `skip` and then `count`.
pub fn inputs_of(mut sample: impl FnMut() -> [i16; AXES], skip: usize, count: usize) -> Vec<Input> {
    let analysis = Analysis::<BANDS>::even(WINDOW).expect("even bands");
    let mut axes = [(); AXES].map(|()| Window::<i16, WINDOW>::new(HOP).expect("a hop within the window"));
    let (mut inputs, mut complete) = (Vec::new(), 0);
    while complete < skip + count {
        let mut full = false;
        for (window, value) in axes.iter_mut().zip(sample()) {
            full = window.push(value);
        }
        complete += usize::from(full);
        if !full || complete <= skip {
            continue;
        }
        for window in &axes {
            let mut samples = [0; WINDOW];
            window.copy_to(&mut samples);
            inputs.push(input(&analysis.features(&mut samples)));
        }
    }
    inputs
}

/// The values of an event that was a window: amplitudes in m/s², ratios as they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WindowOf {
    /// Root mean square of the alternating part.
    pub rms: f64,
    /// Peak by RMS.
    pub crest: f64,
    /// Kurtosis.
    pub kurtosis: f64,
    /// Passages through the mean.
    pub crossings: i64,
    /// RMS within each band.
    pub bands: [f64; BANDS],
}

impl WindowOf {
    /// As a model sees it, when one count of the node's converter is so many nm/s². A value is an integer of the node times
    /// a factor, and far shorter than a double's mantissa, so rounding gives back the node's own integer.
    pub fn input(&self, count: u32) -> Input {
        let unit = f64::from(count) * 1e-9 / f64::from(1_u32 << AMPLITUDE_BITS);
        let amplitude = |value: f64| (value / unit).round() as u32;
        let ratio = |value: f64| (value * f64::from(1_u32 << RATIO_BITS)).round() as u32;
        let moments = Moments {
            rms: amplitude(self.rms),
            crest: ratio(self.crest),
            kurtosis: ratio(self.kurtosis),
            crossings: self.crossings.clamp(0, u16::MAX.into()) as u16,
            ..Moments::default()
        };
        input(&Features { moments, bands: self.bands.map(amplitude) })
    }
}
