//! Everything that a replay needs, read into memory.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Float32Type;
use tributary_features::{Marks, Scope};
use tributary_wire::{Micros, SnapshotNumber, StreamName};

use super::records::{Columns, EventRow, LabelRow, read_events, read_labels};
use super::{DatasetError, DatasetSpec};
use crate::Lake;

/// Everything that a replay needs, in memory.
pub(super) struct Source {
    /// In accept order per device and life of its state, one after the other.
    pub(super) events: Vec<EventRow>,
    /// By place in [`Source::events`].
    pub(super) observations: HashMap<usize, Observation>,
    /// All that are known of the events, in the order in which they became known.
    pub(super) labels: Vec<LabelRow>,
    /// Events of the range that do not fit the view.
    pub(super) unfit: u64,
    /// Numbers of the accept orders that were read from the first to the last, and are not among what was read.
    pub(super) missing: u64,
}

/// Accept numbers of one life of a device: the lowest, the highest, and how many.
type Numbers = HashMap<(String, i64), (i64, i64, u64)>;

/// What a device served for an event.
pub(super) struct Observation {
    pub(super) snapshot: Option<SnapshotNumber>,
    pub(super) features: Vec<f32>,
    pub(super) marks: Marks,
    is_primary: bool,
}

impl Source {
    pub(super) fn read(lake: &Lake, spec: &DatasetSpec) -> Result<Self, DatasetError> {
        let view = &spec.view;
        let reach = view.reach(Scope::Device).max(view.reach(Scope::Fleet));
        // Windows of the first rows look back over `reach`. An event after the range still matters when it was accepted
        // before a row of the range: it decides whether that row came too late.
        let first = Micros(spec.from.0.saturating_sub(reach)).day();
        let last = Micros(spec.to.0.saturating_add(view.lateness())).day();
        let mut source =
            Self { events: Vec::new(), observations: HashMap::new(), labels: Vec::new(), unfit: 0, missing: 0 };
        let mut numbers = Numbers::new();
        for records in scan(lake, "events", first..=last)? {
            let records = records?;
            count_numbers(&records, &mut numbers)?;
            let (events, unfit) = read_events(view, &records)?;
            source.events.extend(events);
            let in_range = |time: &&Micros| **time >= spec.from && **time < spec.to;
            source.unfit += unfit.iter().filter(in_range).count() as u64;
        }
        let missing = |(low, high, count): &(i64, i64, u64)| (high.abs_diff(*low) + 1).saturating_sub(*count);
        source.missing = numbers.values().map(missing).sum();
        source
            .events
            .sort_by(|a, b| (&a.device, a.incarnation, a.accepted).cmp(&(&b.device, b.incarnation, b.accepted)));
        let mut places: HashMap<(String, String), usize> = HashMap::new();
        for (place, event) in source.events.iter().enumerate() {
            places.entry((event.device.clone(), event.id.as_str().to_owned())).or_insert(place);
        }
        for records in scan(lake, "observations", spec.from.day()..=spec.to.day())? {
            source.take_observations(&records?, spec, &places)?;
        }
        // A label lies on the day of its event or on the day it became known, and may have come much later.
        for records in scan(lake, "labels", i64::MIN..=i64::MAX)? {
            let labels = read_labels(&records?)?.into_iter();
            source.labels.extend(labels.filter(|label| spec.labels_until.is_none_or(|until| label.known_at <= until)));
        }
        source.labels.sort_by_key(|label| label.known_at);
        Ok(source)
    }

    /// The snapshot that each event was served from, by its place. An event without an observation, because that was
    /// sampled out or given up, was served from the same as those before and behind it, where these agree: a device never
    /// goes back to an older one.
    pub(super) fn snapshots(&self) -> HashMap<usize, SnapshotNumber> {
        let mut snapshots = HashMap::new();
        let mut before: Option<(usize, SnapshotNumber)> = None;
        for place in 0..self.events.len() {
            let Some(observation) = self.observations.get(&place) else { continue };
            let life = |at: usize| (&self.events[at].device, self.events[at].incarnation);
            if let Some((from, number)) = before
                && observation.snapshot == Some(number)
                && life(from) == life(place)
            {
                snapshots.extend((from + 1..place).map(|between| (between, number)));
            }
            before = observation.snapshot.map(|number| (place, number));
            snapshots.extend(observation.snapshot.map(|number| (place, number)));
        }
        snapshots
    }

    fn take_observations(
        &mut self,
        records: &RecordBatch,
        spec: &DatasetSpec,
        places: &HashMap<(String, String), usize>,
    ) -> Result<(), DatasetError> {
        let columns = Columns { stream: "observations", records };
        let (ids, devices) = (columns.texts("event_id")?, columns.texts("device")?);
        let (lines, roles) = (columns.texts("line")?, columns.texts("role")?);
        let (snapshots, marks) = (columns.ints("snapshot")?, columns.ints("marks")?);
        let found = columns.column("features", "a list of floats")?;
        let Some(features) = found.as_list_opt::<i32>() else {
            return Err(columns.wrong("features", "a list of floats", found.data_type()));
        };
        for at in 0..records.num_rows() {
            let is_primary = roles.value(at) == "primary";
            if features.is_null(at) || spec.line.as_ref().is_some_and(|line| line.as_str() != lines.value(at)) {
                continue;
            }
            let Some(place) = places.get(&(devices.value(at).to_owned(), ids.value(at).to_owned())) else { continue };
            // Every role was given the same features; the primary's are those that decided.
            if self.observations.get(place).is_some_and(|other| other.is_primary || !is_primary) {
                continue;
            }
            let list = features.value(at);
            let Some(values) = list.as_primitive_opt::<Float32Type>() else {
                return Err(columns.wrong("features", "a list of floats", list.data_type()));
            };
            let snapshot = (!snapshots.is_null(at)).then(|| SnapshotNumber(snapshots.value(at) as u64));
            let marks = if marks.is_null(at) { Marks::NONE } else { Marks::from_bits(marks.value(at) as u32) };
            let features = values.values().to_vec();
            self.observations.insert(*place, Observation { snapshot, features, marks, is_primary });
        }
        Ok(())
    }
}

fn count_numbers(records: &RecordBatch, numbers: &mut Numbers) -> Result<(), DatasetError> {
    let columns = Columns { stream: "events", records };
    let (devices, incarnations) = (columns.texts("device")?, columns.ints("incarnation")?);
    let accepted = columns.ints("accepted")?;
    for at in 0..records.num_rows() {
        let number = accepted.value(at);
        let life = (devices.value(at).to_owned(), incarnations.value(at));
        let found = numbers.entry(life).or_insert((number, number, 0));
        *found = (found.0.min(number), found.1.max(number), found.2 + 1);
    }
    Ok(())
}

/// Records of a stream; none when nobody sent any.
fn scan(
    lake: &Lake,
    stream: &'static str,
    days: RangeInclusive<i64>,
) -> Result<impl Iterator<Item = Result<RecordBatch, crate::LakeError>>, DatasetError> {
    let name = StreamName::new(stream).expect("a name without capitals or spaces");
    let scan = if lake.schema(&name).columns.is_empty() { None } else { Some(lake.scan(&name, days, None)?) };
    Ok(scan.into_iter().flatten())
}
