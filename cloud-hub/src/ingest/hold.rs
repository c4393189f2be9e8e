//! While the disk refuses: nothing is taken, devices are told to wait, and a probe finds out when to go on.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::Ordering;

use tributary_process::disk::{self, Access};

use super::SubmitError;
use super::collect::{Item, Origin};
use super::commit::{Committer, Failure, chain};
use super::gathering::micros;
use super::ledger::Ledger;
use super::plan::Receipt;
use super::progress::Progress;
use crate::catalog::alerts::Raise;
use crate::catalog::batches::Numbering;

/// Written and removed again to find out whether the disk takes anything: as much as a small group needs.
const PROBE_BYTES: usize = 256 * 1024;
/// The alert while nothing is taken.
const DISK_ALERT: &str = "disk";

/// While nothing is taken.
pub(super) struct Holding {
    /// When the disk is tried again, in microseconds of the monotonic clock.
    pub(super) again: u64,
    /// Who was told to wait.
    pub(super) told: BTreeSet<Numbering>,
}

impl<L: Ledger> Committer<L> {
    /// While the disk refuses, nothing is kept in memory: devices have it all, and are told to hold.
    pub(super) async fn turn_away(&mut self, items: Vec<Item>) {
        let mut receipts = BTreeMap::new();
        for mut item in items {
            match &mut item.origin {
                Origin::Hub(reply) | Origin::Replay { reply, .. } => {
                    let _ = reply.take().map(|reply| reply.send(Err(SubmitError::Holding)));
                }
                Origin::Device(_) => {
                    let of = item.numbering().cloned();
                    receipts.extend(of.map(|of| (of, Receipt::default())));
                }
            }
        }
        if let Some(holding) = &mut self.holding {
            holding.told.extend(receipts.keys().cloned());
        }
        match self.look_up(receipts.keys()).await {
            Ok(()) => self.send(receipts),
            Err(error) => tracing::error!(error = chain(&error), "devices could not be told to hold"),
        }
    }

    /// Learns where numberings stand that are not known yet.
    async fn look_up(&mut self, numberings: impl Iterator<Item = &Numbering>) -> Result<(), Failure> {
        for of in numberings {
            if !self.standings.contains_key(of) {
                let (through, ranges) = self.parts.catalog.progress(of).await?;
                self.standings.insert(of.clone(), Progress::new(through, ranges));
            }
        }
        Ok(())
    }

    /// When the disk is tried again; `None` while it takes what comes.
    pub(super) fn probes_at(&self) -> Option<u64> {
        self.holding.as_ref().map(|holding| holding.again)
    }

    /// When to try it again after it refused just now.
    pub(super) fn retry_at(&self) -> u64 {
        self.parts.clock.monotonic().saturating_add(micros(self.parts.config.retry.0))
    }

    /// Tries, when that is due, whether disk and catalog take something again; if so, devices may send.
    pub(super) async fn probe(&mut self) {
        let now = self.parts.clock.monotonic();
        if self.probes_at().is_none_or(|again| again > now) {
            return;
        }
        match self.try_probe().await {
            Ok(()) => {
                let told = self.holding.take().map(|holding| holding.told).unwrap_or_default();
                self.counters.holding.store(false, Ordering::Relaxed);
                tracing::info!(streams = told.len(), "the disk takes data again");
                self.load.measure(0);
                self.taken_back().await;
                self.send(told.into_iter().map(|of| (of, Receipt::default())).collect());
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "the disk still refuses");
                let again = self.retry_at();
                if let Some(holding) = &mut self.holding {
                    holding.again = again;
                }
            }
        }
    }

    /// Tells people, if the catalog can still be written; the log has it in any case.
    pub(super) async fn tell_people(&self, problem: &str) {
        let detail = serde_json::json!({
            "problem": problem,
            "meaning": "no records are taken and devices hold them; nothing is lost until their outboxes are full",
            "to_do": "make room on the disk of the hub's data folder, or look for why it cannot be written",
        });
        let alert = Raise { kind: DISK_ALERT, subject: "hub", severity: "critical", detail };
        if let Err(error) = self.parts.catalog.raise(alert, self.parts.now()).await {
            tracing::warn!(error = chain(&error), "the catalog takes no alert about it either");
        }
    }

    async fn taken_back(&self) {
        if let Err(error) = self.parts.catalog.resolve(DISK_ALERT, "hub", self.parts.now()).await {
            tracing::warn!(error = chain(&error), "the alert about the disk stays open");
        }
    }

    /// Removes the files of failed commits that did not happen, and those that the disk let nobody remove: left there,
    /// they would take room, and a catalog made again from the lake could not tell them from others.
    async fn clear_doubtful(&mut self) -> Result<(), Failure> {
        let counting: HashSet<String> = match self.doubtful.is_empty() {
            true => HashSet::new(),
            false => self.parts.catalog.files().await?.into_iter().map(|file| file.path).collect(),
        };
        let (lake, doubtful) = (self.parts.lake.clone(), std::mem::take(&mut self.doubtful));
        let cleared = tokio::task::spawn_blocking(move || {
            doubtful.iter().filter(|path| !counting.contains(*path)).for_each(|path| lake.discard(path));
            lake.discard_left();
        });
        Ok(cleared.await?)
    }

    async fn try_probe(&mut self) -> Result<(), Failure> {
        self.load.check_disk()?;
        let lake = self.parts.lake.clone();
        tokio::task::spawn_blocking(move || {
            let path = lake.root().join(".probe");
            disk::replace(&**lake.disk(), &path, &vec![0; PROBE_BYTES], Access::Everyone)
                .map_err(Failure::Quarantine)?;
            lake.disk().remove(&path).map_err(Failure::Quarantine)
        })
        .await??;
        self.parts.catalog.probe().await?;
        // A commit that failed may have happened: what counts is what the catalog says.
        super::recover::resync(&self.parts).await?;
        self.clear_doubtful().await?;
        self.standings.clear();
        let told = self.holding.as_ref().map(|holding| holding.told.clone()).unwrap_or_default();
        self.look_up(told.iter()).await
    }
}
