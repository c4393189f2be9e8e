//! Which files that a restored catalog does not know were committed after its backup, and which were left behind.
//!
//! A file is committed in one transaction with all of its numbers, so one that shares a batch with the catalog was not
//! committed after the backup: a crash before it left it behind, and what it held came again. The exception is a batch that
//! was in quarantine then and was replayed since. What is condemned is moved aside, never deleted, and it is called spare
//! only if every batch in it is found in another file that is there and counts.

use std::collections::{BTreeSet, HashMap};

use cloud_hub_lake::{BatchKey, FileEntry, Footer, Lake, StreamSchema};
use sqlx::SqliteConnection;
use tributary_wire::{Sha256, StreamName};

use super::Parts;
use super::progress::Progress;
use super::rebuild::{answer, key};
use crate::catalog::batches::{self, Numbering, State};

pub(super) type Described = (FileEntry, Footer, StreamSchema);

pub(super) enum Verdict {
    /// It was committed after the backup.
    New,
    /// It holds a number that the catalog has from elsewhere.
    Known,
    /// It cannot be used, for this reason.
    Other(String),
}

/// What the catalog of the backup knows of numbers, read once for each stream of a device.
#[derive(Default)]
pub(super) struct Judge {
    known: HashMap<Numbering, Progress>,
}

impl Judge {
    pub(super) async fn judge(
        &mut self,
        catalog: &mut SqliteConnection,
        parts: &Parts,
        (_, footer, schema): &Described,
    ) -> Result<Verdict, sqlx::Error> {
        let batch = |batch: &cloud_hub_lake::FooterBatch| {
            let BatchKey { device, incarnation, stream, sequence } = key(&footer.stream, batch);
            (Numbering { device, incarnation, stream }, sequence, batch.hash)
        };
        let rowless = footer.rowless.iter().map(|rowless| answer(&footer.stream, rowless));
        // Where there are rows, they say it: a gap may have been concluded by the hub itself.
        let rowless = rowless.filter(|_| footer.batches.is_empty()).map(|it| (it.of, it.sequence, it.hash));
        for (of, number, hash) in footer.batches.iter().map(batch).chain(rowless) {
            if !self.known.contains_key(&of) {
                let (through, beyond) = batches::progress(catalog, &of).await?;
                self.known.insert(of.clone(), Progress::new(through, beyond));
            }
            if !self.known[&of].contains(number.0) {
                continue;
            }
            let before = batches::answered(catalog, &of, number).await?;
            let is_replayed = before.is_some_and(|(known, state)| state == State::Quarantined && known == hash.0);
            if !is_replayed {
                return Ok(Verdict::Known);
            }
        }
        Ok(disagreement(&parts.lake.schema(&footer.stream), schema).map_or(Verdict::New, Verdict::Other))
    }
}

fn disagreement(known: &StreamSchema, found: &StreamSchema) -> Option<String> {
    for column in &found.columns {
        if let Some(other) = known.columns.iter().find(|other| other.name == column.name && other.kind != column.kind) {
            let (name, found, expected) = (&column.name, column.kind, other.kind);
            return Some(format!("column {name} has type {found:?}, the stream has {expected:?}"));
        }
    }
    None
}

/// A batch's rows of one day: the same in every file that has them.
type Held = HashMap<(BatchKey, i64), (Sha256, u64)>;

/// Of the files condemned those whose every batch is in another file that counts: one of `counting` or one that the lake's
/// index has. Reads footers, of those streams and days alone.
pub(super) fn spare(lake: &Lake, condemned: &[Described], counting: &[Described]) -> BTreeSet<String> {
    let places: BTreeSet<(&StreamName, i64)> =
        condemned.iter().map(|(_, footer, _)| (&footer.stream, footer.day)).collect();
    let mut held = Held::new();
    let mut hold = |footer: &Footer| {
        let batches = footer.batches.iter();
        held.extend(batches.map(|batch| ((key(&footer.stream, batch), footer.day), (batch.hash, batch.rows))));
    };
    for (stream, day) in places {
        let counting = counting.iter().map(|(_, footer, _)| footer);
        counting.filter(|footer| footer.stream == *stream && footer.day == day).for_each(&mut hold);
        for entry in lake.files(stream, day..=day) {
            // One that is not there or cannot be read holds nothing.
            if let Ok((footer, rows)) = lake.footer(&entry.path)
                && rows == entry.rows
            {
                hold(&footer);
            }
        }
    }
    let is_spare = |(_, footer, _): &&Described| {
        footer
            .batches
            .iter()
            .all(|batch| held.get(&(key(&footer.stream, batch), footer.day)) == Some(&(batch.hash, batch.rows)))
    };
    condemned.iter().filter(is_spare).map(|(entry, ..)| entry.path.clone()).collect()
}
