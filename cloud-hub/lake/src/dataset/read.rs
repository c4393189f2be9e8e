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
}

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
        let mut source = Self { events: Vec::new(), observations: HashMap::new(), labels: Vec::new(), unfit: 0 };
        for records in scan(lake, "events", first..=last)? {
            let (events, unfit) = read_events(view, &records?)?;
            source.events.extend(events);
            let in_range = |time: &&Micros| **time >= spec.from && **time < spec.to;
            source.unfit += unfit.iter().filter(in_range).count() as u64;
        }
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
