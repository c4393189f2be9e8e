//! Carries plans out: files first, then one transaction for everything that says they count, then receipts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cloud_hub_lake::{LakeError, Written};
use tokio::sync::mpsc;
use tributary_process::disk::{self, Access, create_folder_below};
use tributary_wire::{Ack, AckV1, DeviceId, StreamAck};

use super::collect::{Item, Origin};
use super::gathering::at;
use super::hold::Holding;
use super::ledger::{Entry, Ledger, LedgerError};
use super::load::Load;
use super::plan::{Plan, Planner, Receipt, Standings};
use super::{Counters, HUB_DEVICE, Parts};
use crate::bus::{Committed, HubEvent};
use crate::catalog::Catalog;
use crate::catalog::batches::{Numbering, State};

/// Why a group was not committed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Someone else answered for a number meanwhile. Planning again finds that out.
    #[error("a number was answered for by someone else")]
    Raced,
    #[error("{free} bytes are free on the disk of {folder:?}, {reserve} stay for the hub itself (ingest.disk_reserve)")]
    DiskReserve { free: u64, reserve: u64, folder: PathBuf },
    #[error("the lake's files")]
    Lake(#[from] LakeError),
    #[error("the quarantine's files")]
    Quarantine(#[source] std::io::Error),
    #[error(transparent)]
    Ledger(LedgerError),
    #[error("a writing task")]
    Task(#[from] tokio::task::JoinError),
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Raced => Self::Raced,
            error => Self::Ledger(error),
        }
    }
}

/// The one that commits.
pub(super) struct Committer<L = Catalog> {
    pub(super) parts: Parts<L>,
    pub(super) counters: Arc<Counters>,
    pub(super) standings: Standings,
    /// Set while the disk refuses.
    pub(super) holding: Option<Holding>,
    /// Files of commits that failed: whether they count is known when the catalog takes something again.
    pub(super) doubtful: Vec<String>,
    /// How much each stream of a device may send.
    pub(super) load: Load,
}

impl<L: Ledger> Committer<L> {
    pub(super) fn new(parts: Parts<L>, counters: Arc<Counters>) -> Self {
        let load = Load::new(&parts);
        Self { parts, counters, standings: Standings::new(), holding: None, doubtful: Vec::new(), load }
    }

    /// Commits groups until no more come.
    pub(super) async fn run(mut self, mut groups: mpsc::Receiver<Vec<Item>>) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                group = groups.recv() => match group {
                    Some(items) if self.holding.is_some() => self.turn_away(items).await,
                    Some(items) => self.group(items, self.parts.clock.monotonic()).await,
                    None => return Ok(()),
                },
                () = at(self.probes_at(), &*self.parts.clock) => self.probe().await,
                () = self.load.eased(), if self.holding.is_none() => self.go_on(),
            }
        }
    }

    /// Commits a group that was `begun` with at this time.
    pub(super) async fn group(&mut self, mut items: Vec<Item>, begun: u64) {
        self.load.took_in(&items);
        loop {
            match self.commit(&items).await {
                Ok(plan) => {
                    let took = self.parts.clock.monotonic() - begun;
                    self.load.committed(&items, Duration::from_micros(took));
                    return self.tell(plan, &mut items);
                }
                Err(Failure::Raced) => self.standings.clear(),
                Err(error) => {
                    tracing::error!(error = chain(&error), "nothing of a group was stored; devices are told to hold");
                    self.counters.holding.store(true, Ordering::Relaxed);
                    self.holding = Some(Holding { again: self.retry_at(), told: BTreeSet::new() });
                    self.tell_people(&chain(&error)).await;
                    return self.turn_away(items).await;
                }
            }
        }
    }

    async fn commit(&mut self, items: &[Item]) -> Result<Plan, Failure> {
        self.load.check_disk()?;
        let mut plan = Planner { parts: &self.parts, known: &self.standings }.plan(items).await?;
        if plan.entry.is_empty() {
            return Ok(plan);
        }
        let written = self.write(&mut plan).await?;
        plan.entry.files = written.iter().map(|file| file.entry.clone()).collect();
        plan.entry.through = plan.standings.iter().map(|(of, standing)| (of.clone(), standing.through())).collect();
        match self.parts.catalog.enter(&plan.entry, self.parts.now()).await.map_err(Failure::from) {
            Ok(files) => {
                self.counters.add(|c| &c.files, files.len() as u64);
                for (stream, (schema, _)) in std::mem::take(&mut plan.entry.schemas) {
                    self.parts.lake.set_schema(&stream, schema);
                }
                self.parts.lake.register(files.iter().cloned());
                for (file, written) in files.into_iter().zip(written) {
                    let committed = Committed { file, records: written.records };
                    self.parts.bus.publish(HubEvent::Committed(Arc::new(committed)));
                }
                Ok(plan)
            }
            Err(Failure::Raced) => {
                written.iter().for_each(|file| self.parts.lake.discard(&file.entry.path));
                Err(Failure::Raced)
            }
            // Whether the commit happened is not known, so the files stay until the catalog says.
            Err(error) => {
                self.doubtful.extend(written.into_iter().map(|file| file.entry.path));
                Err(error)
            }
        }
    }

    /// Makes files durable, without making them count.
    async fn write(&self, plan: &mut Plan) -> Result<Vec<Written>, Failure> {
        let mut rowless = plan.rowless();
        let mut portions = std::mem::take(&mut plan.portions);
        for stream in rowless.keys() {
            portions.entry(stream.clone()).or_default();
        }
        let schemas: BTreeMap<_, _> = portions
            .keys()
            .map(|stream| {
                let grown = plan.entry.schemas.get(stream).map(|(schema, _)| schema.clone());
                (stream.clone(), grown.unwrap_or_else(|| self.parts.lake.schema(stream)))
            })
            .collect();
        let kept: Vec<_> =
            plan.entry.kept.iter().map(|kept| kept.path.clone()).zip(plan.messages.iter().cloned()).collect();
        let (lake, folder) = (self.parts.lake.clone(), self.parts.quarantine.clone());
        tokio::task::spawn_blocking(move || {
            for (path, message) in kept {
                let path = folder.join(path);
                let above = path.parent().unwrap_or(&folder);
                let root = folder.parent().unwrap_or(&folder);
                create_folder_below(&**lake.disk(), root, above).map_err(Failure::Quarantine)?;
                disk::replace(&**lake.disk(), &path, &message, Access::Everyone).map_err(Failure::Quarantine)?;
            }
            let mut written: Vec<Written> = Vec::new();
            for (stream, portions) in portions {
                let rowless = rowless.remove(&stream).unwrap_or_default();
                match lake.write(&stream, &schemas[&stream], &portions, rowless) {
                    Ok(files) => written.extend(files),
                    Err(error) => {
                        written.iter().for_each(|file| lake.discard(&file.entry.path));
                        return Err(error.into());
                    }
                }
            }
            Ok(written)
        })
        .await?
    }

    /// After a group is durable: counts, receipts, answers to orders.
    fn tell(&mut self, plan: Plan, items: &mut [Item]) {
        let Plan { entry, receipts, mut refused, standings, .. } = plan;
        let Entry { answers, kept, cloned, overfull, .. } = entry;
        let stored = || answers.iter().filter(|answer| answer.state == State::Stored);
        self.counters.add(|c| &c.batches, stored().count() as u64);
        self.counters.add(|c| &c.rows, stored().map(|answer| answer.rows).sum());
        let lost = answers.iter().flat_map(|answer| &answer.lost);
        self.counters.add(|c| &c.dropped, lost.map(|lost| lost.records).sum());
        self.counters.add(|c| &c.duplicates, plan.duplicates);
        self.counters.add(|c| &c.conflicts, cloned.len() as u64);
        self.counters.add(|c| &c.quarantined, kept.len() as u64);
        self.counters.add(|c| &c.refused, overfull.len() as u64);
        self.standings.extend(standings);
        self.send(receipts);
        for (place, item) in items.iter_mut().enumerate() {
            if let Origin::Hub(reply) | Origin::Replay { reply, .. } = &mut item.origin
                && let Some(reply) = reply.take()
            {
                let _ = reply.send(refused.remove(&place).map_or(Ok(()), Err));
            }
        }
    }

    /// Tells those who hold and have their turn to go on.
    pub(super) fn go_on(&mut self) {
        let first = self.load.go_on();
        self.send(first.into_iter().map(|of| (of, Receipt::default())).collect());
    }

    /// Receipts with the window that each stream has now: none while the disk refuses.
    pub(super) fn send(&mut self, receipts: BTreeMap<Numbering, Receipt>) {
        let mut acks: BTreeMap<DeviceId, Vec<StreamAck>> = BTreeMap::new();
        for (of, Receipt { answered, quarantined }) in
            receipts.into_iter().filter(|(of, _)| of.device.as_str() != HUB_DEVICE)
        {
            let Some(standing) = self.standings.get(&of) else { continue };
            let (through, scattered) = (standing.through(), standing.scattered(&answered));
            let window = if self.holding.is_some() { 0 } else { self.load.window(&of) };
            let Numbering { device, incarnation, stream } = of;
            acks.entry(device).or_default().push(StreamAck {
                stream,
                incarnation,
                through,
                scattered,
                quarantined,
                window,
            });
        }
        for (device, streams) in acks {
            self.parts.answers.ack(&device, Ack::V1(AckV1 { streams }));
        }
        self.counters.slowed.store(self.load.holding(), Ordering::Relaxed);
    }
}

pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
