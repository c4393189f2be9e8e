//! Carries plans out: files first, then one transaction for everything that says they count, then receipts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cloud_hub_lake::storage::{create_folder_durably, write_durably};
use cloud_hub_lake::{FileEntry, LakeError, Written};
use sqlx::SqliteConnection;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tributary_wire::{Ack, AckV1, DeviceId, Micros, SequenceNumber, StreamAck};

use super::collect::{Item, Origin};
use super::hold::Holding;
use super::load::Load;
use super::plan::{Plan, Planner, Standings};
use super::{Counters, HUB_DEVICE, Parts};
use crate::bus::{Committed, HubEvent};
use crate::catalog::batches::{self, Numbering, State};
use crate::catalog::{alerts, devices, files, quarantine};

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
    #[error("the catalog")]
    Catalog(#[from] sqlx::Error),
    #[error("a writing task")]
    Task(#[from] tokio::task::JoinError),
}

/// The one that commits.
pub(super) struct Committer {
    pub(super) parts: Parts,
    pub(super) counters: Arc<Counters>,
    pub(super) standings: Standings,
    /// Set while the disk refuses.
    pub(super) holding: Option<Holding>,
    /// How much each stream of a device may send.
    pub(super) load: Load,
}

impl Committer {
    pub(super) fn new(parts: Parts, counters: Arc<Counters>) -> Self {
        let load = Load::new(&parts);
        Self { parts, counters, standings: Standings::new(), holding: None, load }
    }

    /// Commits groups until no more come.
    pub(super) async fn run(mut self, mut groups: mpsc::Receiver<Vec<Item>>) -> anyhow::Result<()> {
        loop {
            let again = self.holding.as_ref().map(|holding| holding.again);
            let probe_due = async {
                match again {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                group = groups.recv() => match group {
                    Some(items) if self.holding.is_some() => self.turn_away(items).await,
                    Some(items) => self.group(items).await,
                    None => return Ok(()),
                },
                () = probe_due => self.probe().await,
                () = self.load.eased(), if self.holding.is_none() => self.go_on(),
            }
        }
    }

    pub(super) async fn group(&mut self, mut items: Vec<Item>) {
        let begun = self.parts.clock.monotonic();
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
                    let again = Instant::now() + self.parts.config.retry.0;
                    self.holding = Some(Holding { again, told: BTreeSet::new() });
                    self.tell_people(&chain(&error)).await;
                    return self.turn_away(items).await;
                }
            }
        }
    }

    async fn commit(&mut self, items: &[Item]) -> Result<Plan, Failure> {
        self.load.check_disk()?;
        let mut catalog = self.parts.catalog.reader().acquire().await?;
        let planner = Planner { parts: &self.parts, known: &self.standings, catalog: &mut catalog };
        let mut plan = planner.plan(items).await?;
        drop(catalog);
        if plan.is_empty() {
            return Ok(plan);
        }
        let written = self.write(&mut plan).await?;
        match self.transact(&plan, &written).await {
            Ok(files) => {
                self.counters.add(|c| &c.files, files.len() as u64);
                for (stream, (schema, _)) in std::mem::take(&mut plan.schemas) {
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
            // Whether the commit happened is not known, so the files stay: either they count, or the next start
            // removes them.
            Err(error) => Err(error),
        }
    }

    /// Makes files durable, without making them count.
    async fn write(&self, plan: &mut Plan) -> Result<Vec<Written>, Failure> {
        let portions = std::mem::take(&mut plan.portions);
        let schemas: BTreeMap<_, _> = portions
            .keys()
            .map(|stream| {
                let grown = plan.schemas.get(stream).map(|(schema, _)| schema.clone());
                (stream.clone(), grown.unwrap_or_else(|| self.parts.lake.schema(stream)))
            })
            .collect();
        let kept: Vec<_> = plan.kept.iter().map(|(kept, message)| (kept.path.clone(), message.clone())).collect();
        let (lake, folder) = (self.parts.lake.clone(), self.parts.quarantine.clone());
        tokio::task::spawn_blocking(move || {
            for (path, message) in kept {
                let path = folder.join(path);
                let above = path.parent().unwrap_or(&folder);
                let root = folder.parent().unwrap_or(&folder);
                create_folder_durably(&**lake.storage(), root, above).map_err(Failure::Quarantine)?;
                write_durably(&**lake.storage(), &path, &message).map_err(Failure::Quarantine)?;
            }
            let mut written: Vec<Written> = Vec::new();
            for (stream, portions) in portions {
                match lake.write(&stream, &schemas[&stream], &portions) {
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

    /// One transaction: the files, the numbers they answer for, what was kept aside, what to alert about.
    async fn transact(&self, plan: &Plan, written: &[Written]) -> Result<Vec<FileEntry>, Failure> {
        let now = self.parts.now();
        let mut transaction = self.parts.catalog.write().await?;
        let senders: BTreeSet<&DeviceId> = plan.answers.iter().map(|answer| &answer.of.device).collect();
        for device in senders {
            devices::seen(&mut transaction, device, now).await?;
        }
        for (stream, (schema, had)) in &plan.schemas {
            files::add_columns(&mut transaction, stream, *had, &schema.columns[*had..], now).await?;
        }
        let mut number = files::last_number(&mut transaction).await?;
        let mut entries = Vec::with_capacity(written.len());
        for file in written {
            number += 1;
            let entry = FileEntry { number, ..file.entry.clone() };
            files::insert(&mut transaction, &entry, now).await?;
            entries.push(entry);
        }
        let mut changed = BTreeSet::new();
        for a in &plan.answers {
            if a.replays && batches::replayed(&mut transaction, &a.of, a.sequence, a.rows).await? {
                continue;
            }
            let (of, received) = (&a.of, a.received);
            if !batches::insert(&mut transaction, of, a.sequence, a.last, &a.hash, a.rows, a.state, received).await? {
                return Err(Failure::Raced); // dropping the transaction rolls it back
            }
            batches::insert_gap(&mut transaction, of, (a.sequence, a.last), &a.lost, received).await?;
            changed.insert(of);
        }
        for of in changed {
            if let Some(standing) = plan.standings.get(of) {
                batches::set_through(&mut transaction, of, standing.through()).await?;
            }
        }
        for (kept, _) in &plan.kept {
            quarantine::insert(&mut transaction, kept, now).await?;
        }
        for (device, hash) in &plan.again {
            quarantine::again(&mut transaction, device, hash).await?;
        }
        for id in &plan.replayed {
            quarantine::mark_replayed(&mut transaction, id, now).await?;
        }
        for noted in &plan.noted {
            noted.record(&mut transaction, now).await?;
        }
        raise(&mut transaction, plan, now).await?;
        transaction.commit().await?;
        Ok(entries)
    }

    /// After a group is durable: counts, receipts, answers to orders.
    fn tell(&mut self, plan: Plan, items: &mut [Item]) {
        let Plan { answers, kept, receipts, mut refused, standings, .. } = plan;
        let stored = || answers.iter().filter(|answer| answer.state == State::Stored);
        self.counters.add(|c| &c.batches, stored().count() as u64);
        self.counters.add(|c| &c.rows, stored().map(|answer| answer.rows).sum());
        let lost = answers.iter().flat_map(|answer| &answer.lost);
        self.counters.add(|c| &c.dropped, lost.map(|lost| lost.records).sum());
        self.counters.add(|c| &c.duplicates, plan.duplicates);
        self.counters.add(|c| &c.conflicts, plan.cloned.len() as u64);
        self.counters.add(|c| &c.quarantined, kept.len() as u64);
        self.counters.add(|c| &c.refused, plan.overfull.len() as u64);
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
    fn go_on(&mut self) {
        let first = self.load.go_on();
        self.send(first.into_iter().map(|of| (of, Vec::new())).collect());
    }

    /// Receipts with the window that each stream has now: none while the disk refuses.
    pub(super) fn send(&mut self, receipts: BTreeMap<Numbering, Vec<SequenceNumber>>) {
        let mut acks: BTreeMap<DeviceId, Vec<StreamAck>> = BTreeMap::new();
        for (of, quarantined) in receipts.into_iter().filter(|(of, _)| of.device.as_str() != HUB_DEVICE) {
            let Some(standing) = self.standings.get(&of) else { continue };
            let (through, scattered) = (standing.through(), standing.scattered());
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

async fn raise(catalog: &mut SqliteConnection, plan: &Plan, now: Micros) -> Result<(), sqlx::Error> {
    for (of, sequence) in &plan.cloned {
        let problem = "a batch number came with two different bodies: the device's state was copied or set back";
        let detail = serde_json::json!({ "problem": problem, "stream": of.stream.as_str(), "sequence": sequence.0 });
        let subject = of.device.as_str();
        alerts::raise(catalog, alerts::Raise { kind: "cloned-state", subject, severity: "critical", detail }, now)
            .await?;
    }
    for device in &plan.overfull {
        let detail = serde_json::json!({ "problem": "its bad batches are refused until some are taken out" });
        let alert = alerts::Raise { kind: "quarantine-full", subject: device.as_str(), severity: "warning", detail };
        alerts::raise(catalog, alert, now).await?;
    }
    Ok(())
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
