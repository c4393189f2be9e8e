//! What a hub has, for those who check.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use cloud_hub_lake::{Lake, dataset};
use tributary_features::View;
use tributary_process::disk::walk;
use tributary_stats::Sketch;
use tributary_wire::{DeviceId, Incarnation, StreamName};

use super::{Hub, LAKE, Losses};

impl Hub {
    /// Records that a device reported as given up by this state.
    pub fn losses(&self, device: &DeviceId, incarnation: Incarnation) -> Losses {
        let mut losses = Losses::new();
        let gaps = self.ledger.gaps().into_iter();
        for gap in gaps.filter(|gap| (&gap.of.device, gap.of.incarnation) == (device, incarnation)) {
            *losses.entry((gap.of.stream.as_str().to_owned(), gap.lost.reason)).or_default() += gap.lost.records;
        }
        losses
    }

    /// All files that lie in the lake.
    pub fn lake_files(&self) -> Result<Vec<String>> {
        let files = walk(&self.disk, Path::new(LAKE))?;
        Ok(files.iter().map(|path| path.display().to_string()).collect())
    }

    pub(super) fn lake(&self) -> Result<&Lake> {
        Ok(&self.life.as_ref().context("the hub has no power")?.lake)
    }

    /// Event ids in a stream, each of which must be there once.
    pub fn ids(&self, stream: &str) -> Result<BTreeSet<String>> {
        let (mut ids, stream) = (BTreeSet::new(), StreamName::new(stream)?);
        // A stream of which nothing but gaps came has no columns of its own.
        if self.lake()?.schema(&stream).columns.iter().all(|column| column.name != "event_id") {
            return Ok(ids);
        }
        for records in self.lake()?.scan(&stream, i64::MIN..=i64::MAX, Some(&["event_id"]))? {
            for id in records?.column(0).as_string::<i32>().iter() {
                let id = id.context("a row without an id")?;
                ensure!(ids.insert(id.to_owned()), "{stream}: {id:?} is there more than once");
            }
        }
        Ok(ids)
    }

    /// A file with nothing but events of states whose disks were replaced since.
    pub(super) fn file_of_the_replaced(&self) -> Result<Option<PathBuf>> {
        let (lake, events) = (self.lake()?, StreamName::new("events")?);
        let prefix = |id: &str| id.split_once('.').and_then(|(device, rest)| Some((device.to_owned(), number(rest)?)));
        let mut newest: BTreeMap<String, u32> = BTreeMap::new();
        for (device, state) in self.ids("events")?.iter().filter_map(|id| prefix(id)) {
            let newest = newest.entry(device).or_default();
            *newest = state.max(*newest);
        }
        for file in lake.files(&events, i64::MIN..=i64::MAX) {
            let records = lake.read(&file)?;
            let ids = records.column_by_name("event_id").context("events have ids")?.as_string::<i32>();
            let replaced = |(device, state): (String, u32)| newest.get(&device).is_some_and(|newest| state < *newest);
            if ids.iter().flatten().all(|id| prefix(id).is_some_and(replaced)) {
                return Ok(Some(Path::new(LAKE).join(&file.path)));
            }
        }
        Ok(None)
    }

    /// Predictions that are counted in the lake's sketches, by whose they are.
    pub fn sketched(&self) -> Result<BTreeMap<(DeviceId, Incarnation), u64>> {
        let (mut sketched, stream) = (BTreeMap::new(), StreamName::new("sketches")?);
        // As long as none came it has no columns of its own.
        if self.lake()?.schema(&stream).columns.iter().all(|column| column.name != "sketch") {
            return Ok(sketched);
        }
        for records in self.lake()?.scan(&stream, i64::MIN..=i64::MAX, Some(&["device", "incarnation", "sketch"]))? {
            let records = records?;
            let (devices, incarnations) =
                (records.column(0).as_string::<i32>(), records.column(1).as_primitive::<Int64Type>());
            let sketches = records.column(2).as_binary::<i32>();
            for row in 0..records.num_rows() {
                let of = (DeviceId::new(devices.value(row))?, Incarnation(incarnations.value(row).try_into()?));
                *sketched.entry(of).or_default() += Sketch::decode(sketches.value(row))?.predictions;
            }
        }
        Ok(sketched)
    }

    /// What a replay of the accepted events makes of the features that were served.
    pub fn replay(&self, view: &View) -> Result<dataset::Summary> {
        let spec = dataset::DatasetSpec::whole(view.clone());
        Ok(dataset::Dataset::build(self.lake()?, spec, &|_| Ok(None))?.summary().clone())
    }
}

/// The number before a dash.
fn number(text: &str) -> Option<u32> {
    text.split_once('-')?.0.parse().ok()
}
