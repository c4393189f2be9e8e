//! While the disk refuses: nothing is taken, devices are told to wait, and a probe finds out when to go on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use cloud_hub_lake::storage::write_durably;
use tokio::time::Instant;

use super::SubmitError;
use super::collect::{Item, Origin};
use super::commit::{Committer, Failure, chain};
use super::progress::Progress;
use crate::catalog::alerts;
use crate::catalog::batches::{self, Numbering};

/// Written and removed again to find out whether the disk takes anything: as much as a small group needs.
const PROBE_BYTES: usize = 256 * 1024;
/// The alert while nothing is taken.
const DISK_ALERT: &str = "disk";

/// When to try again, and who was told to wait.
pub(super) struct Holding {
    pub(super) again: Instant,
    pub(super) told: BTreeSet<Numbering>,
}

impl Committer {
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
                    receipts.extend(of.map(|of| (of, Vec::new())));
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
        let mut catalog = self.parts.catalog.reader().acquire().await?;
        for of in numberings {
            if !self.standings.contains_key(of) {
                let (through, ranges) = batches::progress(&mut catalog, of).await?;
                self.standings.insert(of.clone(), Progress::new(through, ranges));
            }
        }
        Ok(())
    }

    /// Tries whether disk and catalog take something again; if so, devices may send.
    pub(super) async fn probe(&mut self) {
        match self.try_probe().await {
            Ok(()) => {
                let told = self.holding.take().map(|holding| holding.told).unwrap_or_default();
                self.counters.holding.store(false, Ordering::Relaxed);
                tracing::info!(streams = told.len(), "the disk takes data again");
                self.load.measure(0);
                self.taken_back().await;
                self.send(told.into_iter().map(|of| (of, Vec::new())).collect());
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "the disk still refuses");
                if let Some(holding) = &mut self.holding {
                    holding.again = Instant::now() + self.parts.config.retry.0;
                }
            }
        }
    }

    /// Tells people, if the catalog can still be written; the log has it in any case.
    pub(super) async fn tell_people(&self, problem: &str) {
        let raised = async {
            let mut catalog = self.parts.catalog.write().await?;
            let detail = serde_json::json!({
                "problem": problem,
                "meaning": "no records are taken and devices hold them; nothing is lost until their outboxes are full",
                "to_do": "make room on the disk of the hub's data folder, or look for why it cannot be written",
            });
            let alert = alerts::Raise { kind: DISK_ALERT, subject: "hub", severity: "critical", detail };
            alerts::raise(&mut catalog, alert, self.parts.now()).await?;
            catalog.commit().await
        };
        if let Err(error) = raised.await {
            tracing::warn!(error = chain(&error), "the catalog takes no alert about it either");
        }
    }

    async fn taken_back(&self) {
        let resolved = async {
            let mut catalog = self.parts.catalog.write().await?;
            alerts::resolve(&mut catalog, DISK_ALERT, "hub", self.parts.now()).await?;
            catalog.commit().await
        };
        if let Err(error) = resolved.await {
            tracing::warn!(error = chain(&error), "the alert about the disk stays open");
        }
    }

    async fn try_probe(&mut self) -> Result<(), Failure> {
        self.load.check_disk()?;
        let lake = self.parts.lake.clone();
        tokio::task::spawn_blocking(move || {
            let path = lake.root().join(".probe");
            write_durably(&**lake.storage(), &path, &vec![0; PROBE_BYTES]).map_err(Failure::Quarantine)?;
            lake.storage().remove(&path).map_err(Failure::Quarantine)
        })
        .await??;
        let mut transaction = self.parts.catalog.write().await?;
        sqlx::query("update devices set last_seen = last_seen").execute(&mut *transaction).await?;
        transaction.commit().await?;
        // A commit that failed may have happened: what counts is what the catalog says.
        super::recover::resync(&self.parts).await?;
        self.standings.clear();
        let told = self.holding.as_ref().map(|holding| holding.told.clone()).unwrap_or_default();
        self.look_up(told.iter()).await
    }
}
