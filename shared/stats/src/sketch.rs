//! What one package did on one device in one window of event time, small enough to send always.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde::{Deserialize, Serialize};

use crate::{Histogram, LatencySketch, MergeError, Reference};

/// Longest byte form of a sketch that is read: 256 inputs of 256 counts of at most ten bytes.
pub const MAX_SKETCH_BYTES: usize = 1 << 20;
/// No window holds more: a million predictions a second for a year.
const MAX_PREDICTIONS: u64 = 1 << 45;

/// Why bytes are not a sketch, or two sketches do not add up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SketchError {
    /// Longer than [`MAX_SKETCH_BYTES`].
    #[error("a sketch of {found} bytes is longer than {MAX_SKETCH_BYTES}")]
    TooLong {
        /// Length that was given.
        found: usize,
    },
    /// Not the byte form of a sketch.
    #[error("not a sketch: {problem}")]
    Malformed {
        /// What was wrong.
        problem: String,
    },
    /// Of another line, version, role or window.
    #[error("sketches of different windows do not add up: {expected} expected, {found} found")]
    OtherWindow {
        /// The one that takes.
        expected: String,
        /// The one that gives.
        found: String,
    },
    /// Over other bins.
    #[error("input {input}: {source}")]
    Bins {
        /// Place of the input; the number of inputs stands for the output.
        input: usize,
        /// Which bins.
        source: MergeError,
    },
}

/// What a sketch is about. Instants are UTC microseconds of event time; the end is exclusive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WindowKey {
    /// Model line.
    pub line: String,
    /// Version within the line.
    pub version: u32,
    /// Role of the package on the device.
    pub role: String,
    /// First instant.
    pub start: i64,
    /// First instant after.
    pub end: i64,
}

/// Mergeable summary of the predictions of one package in one window. Two sketches of the same window add up, so a
/// device may send a window in parts (late events make another part).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sketch {
    /// Of what.
    pub window: WindowKey,
    /// One per feature, in the package's order.
    pub inputs: Vec<Histogram>,
    /// Of the model's output.
    pub output: Histogram,
    /// Of the decision, in microseconds.
    pub latency: LatencySketch,
    /// Predictions made.
    pub predictions: u64,
    /// Of those, how many failed or gave an output outside the manifest's bounds.
    pub errors: u64,
    /// Of those, how many decisions were positive.
    pub positives: u64,
}

#[derive(Serialize, Deserialize)]
enum Versions {
    V1(Sketch),
}

impl Sketch {
    /// An empty sketch of a window over the package's references.
    pub fn new(window: WindowKey, inputs: &[Reference], output: &Reference) -> Self {
        Self {
            window,
            inputs: inputs.iter().map(Reference::empty).collect(),
            output: output.empty(),
            latency: LatencySketch::default(),
            predictions: 0,
            errors: 0,
            positives: 0,
        }
    }

    /// Adds all of `other`, which must be of the same window and over the same bins. On an error nothing is added.
    pub fn merge(&mut self, other: &Self) -> Result<(), SketchError> {
        if self.window != other.window {
            let [expected, found] = [&self.window, &other.window].map(|window| format!("{window:?}"));
            return Err(SketchError::OtherWindow { expected, found });
        }
        self.absorb(other)
    }

    /// Adds the contents of `other`, whatever its window: for a longer window made of shorter ones.
    pub fn absorb(&mut self, other: &Self) -> Result<(), SketchError> {
        if self.inputs.len() != other.inputs.len() {
            let problem = format!("{} inputs expected, {} found", self.inputs.len(), other.inputs.len());
            return Err(SketchError::Malformed { problem });
        }
        // Into a copy first: half a merge would count some inputs twice on the next try.
        let mut merged = self.clone();
        for (input, (ours, theirs)) in merged.inputs.iter_mut().zip(&other.inputs).enumerate() {
            ours.merge(theirs).map_err(|source| SketchError::Bins { input, source })?;
        }
        let input = merged.inputs.len();
        merged.output.merge(&other.output).map_err(|source| SketchError::Bins { input, source })?;
        merged.latency.merge(&other.latency);
        merged.predictions += other.predictions;
        merged.errors += other.errors;
        merged.positives += other.positives;
        *self = merged;
        Ok(())
    }

    /// The byte form, with its format version in front.
    pub fn encode(&self) -> Vec<u8> {
        // Serialising plain structs into memory has no way to fail.
        postcard::to_allocvec(&Versions::V1(self.clone())).expect("a sketch always has a byte form")
    }

    /// Reads the byte form.
    pub fn decode(bytes: &[u8]) -> Result<Self, SketchError> {
        if bytes.len() > MAX_SKETCH_BYTES {
            return Err(SketchError::TooLong { found: bytes.len() });
        }
        let malformed = |problem: &str| SketchError::Malformed { problem: problem.to_owned() };
        let (Versions::V1(sketch), rest) =
            postcard::take_from_bytes(bytes).map_err(|error| malformed(&error.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("bytes follow its end"));
        }
        if sketch.window.end <= sketch.window.start {
            return Err(malformed("its window ends before it begins"));
        }
        if sketch.predictions > MAX_PREDICTIONS {
            return Err(malformed("more predictions than one window can hold"));
        }
        if sketch.errors > sketch.predictions || sketch.positives > sketch.predictions {
            return Err(malformed("more errors or positives than predictions"));
        }
        // Every prediction is in every histogram exactly once; this also keeps later sums from overflowing.
        let whole = |histogram: &Histogram| histogram.checked_rows() == Some(sketch.predictions);
        if !sketch.inputs.iter().all(whole) || !whole(&sketch.output) {
            return Err(malformed("a histogram that does not hold as many values as there were predictions"));
        }
        if sketch.latency.checked_count() != Some(sketch.predictions) {
            return Err(malformed("not as many latencies as predictions"));
        }
        let moments = sketch.inputs.iter().chain([&sketch.output]).map(|histogram| &histogram.moments);
        if moments.into_iter().any(|moments| !moments.mean.is_finite() || !moments.squares.is_finite()) {
            return Err(malformed("a mean or a variance that is not a finite number"));
        }
        Ok(sketch)
    }
}

/// One prediction, as far as sketches care.
#[derive(Debug, Clone, Copy)]
pub struct Prediction<'a> {
    /// Event time in UTC microseconds.
    pub time: i64,
    /// Features as served.
    pub features: &'a [f32],
    /// Output; `None` when the prediction failed.
    pub output: Option<f32>,
    /// The decision.
    pub decision: bool,
    /// Whether it failed or lay outside the manifest's bounds.
    pub error: bool,
    /// How long the decision took.
    pub latency_us: u64,
}

/// Fills the sketches of one package on one device, window by window in event time.
#[derive(Debug, Clone)]
pub struct Sketcher {
    line: String,
    version: u32,
    role: String,
    width: i64,
    inputs: Vec<Reference>,
    output: Reference,
    open: BTreeMap<i64, Sketch>,
}

impl Sketcher {
    /// For a package with these references; `width` is the length of a window in microseconds, aligned to the epoch.
    pub fn new(line: &str, version: u32, role: &str, inputs: &[Reference], output: &Reference, width: i64) -> Self {
        assert!(width > 0, "a window has a length");
        Self {
            line: line.to_owned(),
            version,
            role: role.to_owned(),
            width,
            inputs: inputs.to_vec(),
            output: output.clone(),
            open: BTreeMap::new(),
        }
    }

    /// Adds a prediction to the window of its event time, opening that window if need be.
    pub fn record(&mut self, prediction: &Prediction<'_>) {
        let start = prediction.time.div_euclid(self.width).saturating_mul(self.width);
        if !self.open.contains_key(&start) {
            self.open.insert(start, self.empty(start));
        }
        let sketch = self.open.get_mut(&start).expect("the window was opened above");
        for (index, reference) in self.inputs.iter().enumerate() {
            sketch.inputs[index].record(&reference.bins, prediction.features.get(index).copied());
        }
        sketch.output.record(&self.output.bins, prediction.output);
        sketch.latency.record(prediction.latency_us);
        sketch.predictions += 1;
        sketch.errors += u64::from(prediction.error);
        sketch.positives += u64::from(prediction.decision);
    }

    fn empty(&self, start: i64) -> Sketch {
        let (line, version, role) = (self.line.clone(), self.version, self.role.clone());
        let window = WindowKey { line, version, role, start, end: start.saturating_add(self.width) };
        Sketch::new(window, &self.inputs, &self.output)
    }

    /// Takes out the windows that ended at or before `watermark`, oldest first.
    pub fn close(&mut self, watermark: i64) -> Vec<Sketch> {
        let first_open = watermark.saturating_sub(self.width).saturating_add(1);
        let still_open = self.open.split_off(&first_open);
        std::mem::replace(&mut self.open, still_open).into_values().collect()
    }

    /// Takes out all windows, also unfinished ones: when the package stops serving.
    pub fn close_all(&mut self) -> Vec<Sketch> {
        std::mem::take(&mut self.open).into_values().collect()
    }

    /// The windows that are still being filled, to be stored.
    pub fn open(&self) -> impl Iterator<Item = &Sketch> {
        self.open.values()
    }

    /// Takes a stored open window back. One of another package or over other bins is refused.
    pub fn resume(&mut self, sketch: Sketch) -> Result<(), SketchError> {
        let start = sketch.window.start.div_euclid(self.width).saturating_mul(self.width);
        let mut window = self.empty(start);
        window.merge(&sketch)?;
        match self.open.entry(start) {
            Entry::Occupied(mut open) => open.get_mut().merge(&window)?,
            Entry::Vacant(place) => _ = place.insert(window),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;

    fn sketcher() -> Sketcher {
        let values: Vec<f32> = (0..1000).map(|i| i as f32).collect();
        let inputs = [Reference::build("a", &values, &[], 8), Reference::build("b", &values, &[], 4)];
        Sketcher::new("card-fraud", 3, "primary", &inputs, &Reference::build("output", &values, &[], 4), DAY)
    }

    fn prediction(time: i64, features: &[f32]) -> Prediction<'_> {
        Prediction { time, features, output: Some(0.5), decision: true, error: false, latency_us: 120 }
    }

    #[test]
    fn windows_follow_event_time_and_close_behind_the_watermark() {
        let mut sketcher = sketcher();
        for time in [-1, 0, DAY - 1, DAY, 3 * DAY] {
            sketcher.record(&prediction(time, &[1.0, 2.0]));
        }
        assert!(sketcher.close(-1).is_empty(), "the window [-DAY, 0) ends at 0");
        let closed: Vec<_> = sketcher.close(2 * DAY).iter().map(|s| (s.window.start, s.predictions)).collect();
        assert_eq!(closed, [(-DAY, 1), (0, 2), (DAY, 1)]);
        assert_eq!(sketcher.open().count(), 1);
        assert_eq!(sketcher.close_all().len(), 1);
    }

    #[test]
    fn a_sketch_survives_its_byte_form_and_parts_of_a_window_add_up() {
        let mut sketcher = sketcher();
        sketcher.record(&prediction(5, &[1.0, f32::NAN]));
        let first = sketcher.close_all().remove(0);
        assert_eq!(Sketch::decode(&first.encode()), Ok(first.clone()));
        sketcher.record(&Prediction { output: None, error: true, ..prediction(7, &[2.0]) });
        let second = sketcher.close_all().remove(0);
        let mut both = first.clone();
        both.merge(&second).unwrap();
        assert_eq!((both.predictions, both.errors, both.positives), (2, 1, 2));
        assert_eq!((both.inputs[1].nan, both.inputs[1].nulls, both.output.nulls), (1, 1, 1));
        sketcher.resume(first.clone()).unwrap();
        sketcher.resume(second).unwrap();
        assert_eq!(sketcher.close_all(), [both]);
    }

    #[test]
    fn sketches_of_other_windows_or_bins_are_refused() {
        let mut sketcher = sketcher();
        sketcher.record(&prediction(5, &[1.0, 2.0]));
        let sketch = sketcher.close_all().remove(0);
        let mut other = sketch.clone();
        other.window.version = 4;
        assert!(matches!(sketch.clone().merge(&other), Err(SketchError::OtherWindow { .. })));
        assert!(sketcher.resume(other).is_err());
        assert_eq!(sketcher.open().count(), 0, "a refused window leaves nothing behind");
        let mut other = sketch.clone();
        other.inputs[1].fingerprint ^= 1;
        assert!(matches!(sketch.clone().merge(&other), Err(SketchError::Bins { input: 1, .. })));
    }

    #[test]
    fn damaged_bytes_and_impossible_counts_are_refused() {
        let mut sketcher = sketcher();
        (0..9).for_each(|i| sketcher.record(&prediction(i, &[i as f32, 2.0])));
        let sketch = sketcher.close_all().remove(0);
        let bytes = sketch.encode();
        for length in 0..bytes.len() {
            assert!(Sketch::decode(&bytes[..length]).is_err(), "cut at {length}");
        }
        assert!(matches!(Sketch::decode(&vec![0; MAX_SKETCH_BYTES + 1]), Err(SketchError::TooLong { .. })));
        let wrongs: [fn(&mut Sketch); 4] = [
            |sketch| sketch.inputs[0].counts[0] = u64::MAX,
            |sketch| sketch.errors = 100,
            |sketch| sketch.window.end = sketch.window.start,
            |sketch| sketch.output.moments.mean = f64::NAN,
        ];
        for spoil in wrongs {
            let mut wrong = sketch.clone();
            spoil(&mut wrong);
            assert!(matches!(Sketch::decode(&wrong.encode()), Err(SketchError::Malformed { .. })));
        }
    }
}
