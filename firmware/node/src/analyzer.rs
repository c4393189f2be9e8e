//! Readings in, the features of every axis out.

use tributary_signal::{Analysis, Features, Model, Window};
use tributary_wire::link::{Features as Told, Numbers};

/// Windows of `N` samples of `AXES` axes, with `B` bands.
#[derive(Debug)]
pub struct Analyzer<'a, const AXES: usize, const N: usize, const B: usize> {
    windows: [Window<i16, N>; AXES],
    analysis: Analysis<B>,
    model: Option<Model<'a>>,
    scratch: [i32; N],
    complete: u32,
}

/// One window of one axis, and what a model thinks of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowFeatures<const B: usize> {
    /// Number of the window.
    pub window: u32,
    /// Which axis.
    pub axis: u8,
    /// Its features.
    pub features: Features<B>,
    /// Its score, when there is a model.
    pub score: Option<u32>,
}

impl<'a, const AXES: usize, const N: usize, const B: usize> Analyzer<'a, AXES, N, B> {
    /// # Panics
    /// When `hop` is not from 1 to `N`: both are constants of a board.
    pub fn new(hop: usize, analysis: Analysis<B>, model: Option<Model<'a>>) -> Self {
        assert_eq!(analysis.length(), N, "the analysis is of other windows");
        let windows = core::array::from_fn(|_| Window::new(hop).expect("a hop within the window"));
        Self { windows, analysis, model, scratch: [0; N], complete: 0 }
    }

    /// What is computed.
    pub fn analysis(&self) -> &Analysis<B> {
        &self.analysis
    }

    /// The model, when there is one.
    pub fn model(&self) -> Option<&Model<'a>> {
        self.model.as_ref()
    }

    /// Takes the values of one tick; whether a window is complete with them.
    pub fn push(&mut self, values: [i16; AXES]) -> bool {
        let mut complete = false;
        for (window, value) in self.windows.iter_mut().zip(values) {
            complete = window.push(value);
        }
        self.complete = self.complete.wrapping_add(u32::from(complete));
        complete
    }

    /// A tick without values: no window may span it.
    pub fn clear(&mut self) {
        self.windows.iter_mut().for_each(Window::clear);
    }

    /// Number of the last complete window.
    pub fn number(&self) -> u32 {
        self.complete
    }

    /// The features of an axis in the window that was just completed.
    pub fn features(&mut self, axis: usize) -> WindowFeatures<B> {
        self.windows[axis].copy_to(&mut self.scratch);
        let features = self.analysis.features(&mut self.scratch);
        let score = self.model.as_ref().map(|model| {
            let (mut inputs, mut count) = ([0; tributary_signal::MAX_WIDTH], 0);
            features.inputs(|input| {
                if let Some(place) = inputs.get_mut(count) {
                    *place = input;
                    count += 1;
                }
            });
            model.score(&inputs[..count])
        });
        WindowFeatures { window: self.complete, axis: axis as u8, features, score }
    }

    /// The samples of an axis in the window that was just completed.
    pub fn samples(&self, axis: usize) -> impl Iterator<Item = i16> + '_ {
        self.windows[axis].samples()
    }
}

impl<const B: usize> WindowFeatures<B> {
    /// As it goes over the link.
    pub fn told(&self, temperature: Option<i16>) -> Told {
        let moments = self.features.moments;
        Told {
            window: self.window,
            axis: self.axis,
            mean: moments.mean,
            rms: moments.rms,
            peak: moments.peak,
            crest: moments.crest,
            kurtosis: moments.kurtosis,
            crossings: moments.crossings,
            bands: Numbers::new(self.features.bands),
            score: self.score,
            temperature,
        }
    }
}
