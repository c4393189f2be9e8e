//! From events, observations and labels to rows.

use std::collections::{BTreeMap, HashMap, HashSet};

use tributary_features::{DeviceWindows, EventId, FleetTable, FleetWindows, Marks, Scope, View};
use tributary_wire::{Micros, SnapshotNumber};

use super::read::Source;
use super::{Dataset, DatasetError, DatasetRow, DatasetSpec, MAX_EXAMPLES, Mismatch, SnapshotLookup, Summary};

/// A row that is being made.
struct Draft {
    /// Place of its event in the source.
    event: usize,
    features: Vec<f32>,
}

pub(super) fn replay(
    spec: DatasetSpec,
    source: Source,
    snapshots: &SnapshotLookup<'_>,
) -> Result<Dataset, DatasetError> {
    let mut summary = Summary { unfit: source.unfit, missing: source.missing, ..Summary::default() };
    let mut drafts = match spec.view.served_only() {
        true => as_served(&spec, &source, &mut summary),
        false => device_features(&spec, &source, &mut summary),
    };
    // In event-time order; the rest makes the order the same whatever files the rows came from.
    drafts.sort_by(|a, b| {
        let key = |draft: &Draft| {
            let event = &source.events[draft.event];
            (event.row.time, &event.device, event.incarnation, event.accepted)
        };
        key(a).cmp(&key(b))
    });
    let mut lost = HashSet::new();
    // What was served is there as it was; nothing of it can be made again.
    if !spec.view.served_only() {
        let from = source.snapshots();
        lost = fleet_from_snapshots(&spec.view, (&source, &from), &mut drafts, snapshots)?;
        compare(&spec.view, &source, &drafts, &lost, &mut summary);
        fleet_in_event_time(&spec, (&source, &from), &mut drafts, &lost, &mut summary);
    }
    summary.lost_snapshots = lost.into_iter().collect();
    summary.lost_snapshots.sort_unstable();

    // Labels come in the order in which they became known: the last one holds.
    let labels: HashMap<&EventId, bool> = source.labels.iter().map(|label| (&label.event, label.label)).collect();
    let (mut rows, mut features) = (Vec::with_capacity(drafts.len()), Vec::new());
    for draft in &drafts {
        let event = &source.events[draft.event];
        let label = labels.get(&event.id).copied();
        summary.rows += 1;
        summary.labelled += u64::from(label.is_some());
        summary.positives += u64::from(label == Some(true));
        summary.sampled += u64::from(event.inclusion < 1.0);
        summary.estimated += 1.0 / event.inclusion;
        rows.push(DatasetRow {
            event_id: event.id.as_str().to_owned(),
            event_time: event.row.time,
            device: event.device.clone(),
            label,
            inclusion: event.inclusion,
        });
        features.extend_from_slice(&draft.features);
    }
    Ok(Dataset { spec, rows, features, summary })
}

/// Takes the features that were served.
fn as_served(spec: &DatasetSpec, source: &Source, summary: &mut Summary) -> Vec<Draft> {
    let width = spec.view.features().len();
    let mut drafts = Vec::new();
    for (number, event) in source.events.iter().enumerate() {
        if event.row.time < spec.from || event.row.time >= spec.to {
            continue;
        }
        // Another number of features is another view's.
        match source.observations.get(&number).filter(|seen| seen.features.len() == width) {
            Some(seen) => drafts.push(Draft { event: number, features: seen.features.clone() }),
            None => summary.unserved += 1,
        }
    }
    summary.as_served = drafts.len() as u64;
    drafts
}

/// Replays every device in accept order, with empty windows at the start of every life of its state.
fn device_features(spec: &DatasetSpec, source: &Source, summary: &mut Summary) -> Vec<Draft> {
    let view = &spec.view;
    let mut drafts = Vec::new();
    let mut features = vec![0.0; view.features().len()];
    let mut current: Option<(&str, i64, DeviceWindows)> = None;
    let mut is_thinned = false;
    for (number, event) in source.events.iter().enumerate() {
        let is_same = current.as_ref().is_some_and(|(d, i, _)| (*d, *i) == (event.device.as_str(), event.incarnation));
        if !is_same {
            current = Some((&event.device, event.incarnation, DeviceWindows::new(view)));
            is_thinned = false;
        }
        is_thinned |= event.inclusion < 1.0 && view.has_scope(Scope::Device);
        let Some((_, _, windows)) = &mut current else { continue };
        windows.observe(&event.row, &mut features);
        if event.row.time >= spec.from && event.row.time < spec.to {
            summary.thinned += u64::from(is_thinned);
            drafts.push(Draft { event: number, features: features.clone() });
        }
    }
    drafts
}

/// Where events were served from, by their place in the source.
type Snapshots = HashMap<usize, SnapshotNumber>;

/// Fills what devices were served: from the snapshot named, or the defaults where none was named. Gives the snapshots
/// whose history is gone.
fn fleet_from_snapshots(
    view: &View,
    (source, from): (&Source, &Snapshots),
    drafts: &mut [Draft],
    lookup: &SnapshotLookup<'_>,
) -> Result<HashSet<SnapshotNumber>, DatasetError> {
    // One snapshot at a time in memory.
    let mut by_snapshot: BTreeMap<Option<SnapshotNumber>, Vec<usize>> = BTreeMap::new();
    for (at, draft) in drafts.iter().enumerate() {
        by_snapshot.entry(from.get(&draft.event).copied()).or_default().push(at);
    }
    let mut lost = HashSet::new();
    if !view.has_scope(Scope::Fleet) {
        return Ok(lost);
    }
    for (number, rows) in by_snapshot {
        let mut table = FleetTable::new(view);
        if let Some(number) = number {
            let parts = lookup(number).map_err(|source| DatasetError::Lookup { number, source })?;
            for part in parts.into_iter().flatten() {
                table.offer(part).map_err(|source| DatasetError::Snapshot { number, source })?;
            }
            if table.number() != Some(number) {
                lost.insert(number);
            }
        }
        for at in rows {
            let row = &source.events[drafts[at].event].row;
            table.fill(row, &mut drafts[at].features);
        }
    }
    Ok(lost)
}

/// Where the fleet-scope features of a row come from.
fn snapshot_of(from: &Snapshots, event: usize, lost: &HashSet<SnapshotNumber>) -> Option<SnapshotNumber> {
    from.get(&event).copied().filter(|number| !lost.contains(number))
}

/// Counts rows whose features as served are not, bit for bit, those that the replay gives.
fn compare(view: &View, source: &Source, drafts: &[Draft], lost: &HashSet<SnapshotNumber>, summary: &mut Summary) {
    for draft in drafts {
        let Some(observation) = source.observations.get(&draft.event) else {
            summary.unobserved += 1;
            continue;
        };
        if observation.marks.contains(Marks::COLD) {
            summary.cold += 1;
            continue;
        }
        summary.compared += 1;
        let is_lost = observation.snapshot.is_some_and(|number| lost.contains(&number));
        if observation.features.len() != view.features().len() {
            summary.mismatches += 1;
            continue;
        }
        let mut differs = false;
        for (at, feature) in view.features().iter().enumerate() {
            let (served, replayed) = (observation.features[at], draft.features[at]);
            if served.to_bits() == replayed.to_bits() || (is_lost && feature.scope == Scope::Fleet) {
                continue;
            }
            differs = true;
            if summary.examples.len() < MAX_EXAMPLES {
                let event = &source.events[draft.event];
                summary.examples.push(Mismatch {
                    device: event.device.clone(),
                    event_id: event.id.as_str().to_owned(),
                    feature: feature.name.clone(),
                    served,
                    replayed,
                });
            }
        }
        summary.mismatches += u64::from(differs);
    }
}

/// Fills rows that were served without a snapshot with what the hub would have known at their time.
fn fleet_in_event_time(
    spec: &DatasetSpec,
    (source, from): (&Source, &Snapshots),
    drafts: &mut [Draft],
    lost: &HashSet<SnapshotNumber>,
    summary: &mut Summary,
) {
    let needs: Vec<bool> = drafts.iter().map(|draft| snapshot_of(from, draft.event, lost).is_none()).collect();
    let computed = needs.iter().filter(|needs| **needs).count() as u64;
    summary.from_snapshots = drafts.len() as u64 - computed;
    summary.computed = computed;
    if computed == 0 || !spec.view.has_scope(Scope::Fleet) {
        return;
    }
    let mut windows = FleetWindows::new(&spec.view);
    let times: HashMap<&EventId, Micros> = source.events.iter().map(|event| (&event.id, event.row.time)).collect();
    for label in &source.labels {
        if let Some(time) = times.get(&label.event) {
            // Both must have passed: the declared delay, and the moment at which the hub was really told.
            let declared = Micros(time.0.saturating_add(spec.label_delay));
            windows.label(&label.event, label.known_at.max(declared), label.label);
        }
    }
    let mut order: Vec<usize> = (0..source.events.len()).collect();
    order.sort_by_key(|at| source.events[*at].row.time);
    let mut next = 0;
    for (draft, needs) in drafts.iter_mut().zip(needs) {
        let row = &source.events[draft.event].row;
        // Events of equal time count too, as they do for a hub that takes its snapshot then.
        while let Some(at) = order.get(next)
            && source.events[*at].row.time <= row.time
        {
            windows.observe(&source.events[*at].id, &source.events[*at].row);
            next += 1;
        }
        if needs {
            windows.fill_at(row, &mut draft.features);
        }
    }
}
