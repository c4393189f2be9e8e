//! Raw windows are put together from their parts.

use std::collections::BTreeMap;

use tributary_wire::link::{RAW_SAMPLES, RawPart};

/// A whole raw window of one axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawWindow {
    /// Its number.
    pub window: u32,
    /// Which axis.
    pub axis: u8,
    /// Its samples in counts.
    pub samples: Vec<i16>,
    /// Numbers of the records that it came in: they are stored when it is.
    pub records: Vec<u32>,
}

#[derive(Debug)]
struct Parts {
    window: u32,
    parts: Vec<Option<Vec<i16>>>,
    records: Vec<u32>,
}

/// Parts of windows that are not whole yet, one window an axis.
#[derive(Debug, Default)]
pub struct RawAssembly {
    axes: BTreeMap<u8, Parts>,
}

/// What became of a part.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assembled {
    /// The window that is whole with it.
    pub whole: Option<RawWindow>,
    /// Records of a window that will never be whole, because the next one has begun.
    pub given_up: Vec<u32>,
}

impl RawAssembly {
    /// Takes the part that came in a record.
    pub fn part(&mut self, record: u32, part: &RawPart<'_>) -> Assembled {
        let mut assembled = Assembled::default();
        let (at, of) = (usize::from(part.part), usize::from(part.of));
        let begin = || Parts { window: part.window, parts: vec![None; of], records: Vec::new() };
        let parts = self.axes.entry(part.axis).or_insert_with(begin);
        if parts.window != part.window || parts.parts.len() != of {
            assembled.given_up = core::mem::replace(parts, begin()).records;
        }
        let Some(place) = parts.parts.get_mut(at) else {
            // No window has such a part.
            assembled.given_up.push(record);
            return assembled;
        };
        *place = Some(part.samples().take(RAW_SAMPLES).collect());
        parts.records.push(record);
        if parts.parts.iter().all(Option::is_some)
            && let Some(parts) = self.axes.remove(&part.axis)
        {
            let samples = parts.parts.into_iter().flatten().flatten().collect();
            let (window, axis, records) = (parts.window, part.axis, parts.records);
            assembled.whole = Some(RawWindow { window, axis, samples, records });
        }
        assembled
    }

    /// A new session began, so nothing of the old one will come.
    pub fn clear(&mut self) {
        self.axes.clear();
    }
}
