//! Fleet-scope features on their way to devices: windows over all events and labels of the lake, taken as numbered
//! snapshots at the view's cadence in event time, kept for datasets, and sent down.
//!
//! A snapshot is durable before any device sees it, so that every number in an observation can be looked up. After a
//! restart the windows are made again from the lake; numbers go on where they ended, after a restore above all that
//! devices report.

mod floor;
mod snapshots;
mod view;

pub use snapshots::{Snapshots, SnapshotsError};

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use cloud_hub_lake::dataset::{DatasetError, read_events, read_labels};
use cloud_hub_lake::{FileEntry, Lake, LakeError};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tributary_features::{Scope, View};
use tributary_process::config::HumanDuration;
use tributary_process::shutdown::Shutdown;
use tributary_wire::topic::Channel;
use tributary_wire::{DeviceId, FeatureSnapshot, FeatureSnapshotV1, Micros, SnapshotNumber, StreamName};

use crate::hub::{Hub, HubEvent};
use crate::registry::views;
use floor::Floor;
use view::FleetView;

/// How snapshots are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How often the lake is looked at for events and labels.
    pub interval: HumanDuration,
    /// How long a snapshot is kept after a newer one, in event time. Datasets over older events compute what they lack.
    pub keep: HumanDuration,
    /// A device that reports an older snapshot is sent the newest again after this.
    pub resend: HumanDuration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval: HumanDuration(Duration::from_millis(250)),
            keep: HumanDuration(Duration::from_secs(400 * 86_400)),
            resend: HumanDuration(Duration::from_secs(15)),
        }
    }
}

/// The snapshots of a hub.
pub fn snapshots(hub: &Hub) -> Snapshots {
    Snapshots::new(hub.data().join("snapshots"))
}

/// A view that is being materialised, and how far into the lake it has read.
struct Following {
    fleet: FleetView,
    events: i64,
    labels: i64,
    /// The newest snapshot, as messages.
    newest: Option<(SnapshotNumber, Vec<Bytes>)>,
}

type ViewKey = (String, u32);

/// Which snapshot of which view a device was sent on its present connection, and when.
type Sent = HashMap<DeviceId, HashMap<ViewKey, (SnapshotNumber, Instant)>>;

impl Following {
    fn key(&self) -> ViewKey {
        (self.fleet.view().name().to_owned(), self.fleet.view().version())
    }

    /// Goes on after the newest snapshot kept, with the events that still matter to later ones.
    fn start(view: View, lake: &Lake, snapshots: &Snapshots) -> anyhow::Result<Self> {
        let last = snapshots.newest(&view)?;
        let newest = match last {
            Some((number, _)) => snapshots.parts(&view, number)?.map(|parts| (number, messages(&parts))),
            None => None,
        };
        let fleet = FleetView::new(view, last);
        let since = fleet.needed_since();
        let after = |stream| skip(&lake.files_after(&stream_name(stream), 0), since);
        Ok(Self { events: after("events"), labels: after("labels"), fleet, newest })
    }

    /// Reads what is new in the lake, and takes a snapshot if one is due; whether one was taken.
    fn step(&mut self, lake: &Lake, snapshots: &Snapshots, keep: Duration, floor: Floor) -> anyhow::Result<bool> {
        // Labels first: one that is here must not miss the snapshot because its event came with the same look.
        for file in lake.files_after(&stream_name("labels"), self.labels) {
            if let Some(labels) = readable(&file, read_labels(&lake.read(&file)?))? {
                self.fleet.take_labels(labels);
            }
            self.labels = file.number;
        }
        for file in lake.files_after(&stream_name("events"), self.events) {
            if let Some((events, _)) = readable(&file, read_events(self.fleet.view(), &lake.read(&file)?))? {
                self.fleet.take_events(events);
            }
            self.events = file.number;
        }
        let Some(due) = self.fleet.due() else { return Ok(false) };
        let (number, parts) = self.fleet.snapshot(due, floor);
        let view = self.fleet.view();
        snapshots.keep(view, number, due, &parts)?;
        snapshots.forget(view, Micros(due.0.saturating_sub(keep.as_micros().min(i64::MAX as u128) as i64)))?;
        tracing::debug!(view = view.name(), version = view.version(), %number, taken = %due, "took a snapshot of fleet-scope features");
        self.newest = Some((number, messages(&parts)));
        self.fleet.kept(number, due);
        Ok(true)
    }
}

/// Events of another view share the stream: a file without this view's columns holds none of its events.
fn readable<T>(file: &FileEntry, read: Result<T, DatasetError>) -> Result<Option<T>, LakeError> {
    match read {
        Ok(rows) => Ok(Some(rows)),
        Err(DatasetError::Lake(error)) => Err(error),
        Err(error) => {
            tracing::debug!(path = file.path, error = &error as &dyn std::error::Error, "a file does not fit the view");
            Ok(None)
        }
    }
}

/// The number of the last file before the first that holds anything since `since`.
fn skip(files: &[FileEntry], since: Micros) -> i64 {
    let old = files.iter().take_while(|file| file.max_time < since);
    old.last().map_or(0, |file| file.number)
}

fn messages(parts: &[FeatureSnapshotV1]) -> Vec<Bytes> {
    parts.iter().map(|part| FeatureSnapshot::V1(part.clone()).encode().into()).collect()
}

fn stream_name(name: &'static str) -> StreamName {
    StreamName::new(name).expect("a name without capitals or spaces")
}

/// Takes and sends snapshots until the signal is given.
pub async fn run(hub: Arc<Hub>, shutdown: Shutdown) -> anyhow::Result<()> {
    let config = hub.config.materialize.clone();
    let mut news = hub.bus.subscribe();
    let mut ticks = tokio::time::interval(config.interval.0);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut followed: HashMap<ViewKey, Following> = HashMap::new();
    let mut sent: Sent = HashMap::new();
    let mut floor = Floor::of(&hub.catalog).await.context("could not read which snapshots devices have")?;
    loop {
        tokio::select! {
            () = shutdown.given() => return Ok(()),
            _ = ticks.tick() => {
                // A full disk or a damaged file is no reason to end: devices go on with the snapshot they have.
                if let Err(error) = follow_new_views(&hub, &mut followed).await {
                    tracing::warn!(error = error.as_ref() as &dyn std::error::Error, "views were not looked up");
                }
                if floor.holds(&hub.catalog).await {
                    continue;
                }
                followed = step_all(&hub, followed, &mut sent, floor).await;
            }
            heard = news.recv() => match heard {
                Ok(HubEvent::Connected(device) | HubEvent::Disconnected(device)) => { sent.remove(&device); }
                Ok(HubEvent::Report { device, report }) => {
                    let has = report.snapshot.map(|(number, _)| number);
                    floor.heard(has);
                    answer(&hub, &followed, &mut sent, device, has, config.resend.0);
                }
                // What was missed comes again: devices report at intervals.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
        }
    }
}

/// Begins to follow views that were added since the last look.
async fn follow_new_views(hub: &Arc<Hub>, followed: &mut HashMap<ViewKey, Following>) -> anyhow::Result<()> {
    const PAGE: u32 = 200;
    let mut catalog = hub.catalog.reader().acquire().await?;
    let mut after = String::new();
    loop {
        let records = views::list(&mut catalog, &after, PAGE).await?;
        for record in &records {
            let key = (record.name.clone(), record.version as u32);
            if followed.contains_key(&key) {
                continue;
            }
            let view = record.view()?;
            if view.has_scope(Scope::Fleet) {
                let (lake, snapshots) = (hub.lake.clone(), snapshots(hub));
                let start = tokio::task::spawn_blocking(move || Following::start(view, &lake, &snapshots));
                followed.insert(key, start.await?.context("could not go on with a view's snapshots")?);
            }
        }
        match records.last() {
            Some(last) if records.len() == PAGE as usize => after = views::list_key(last),
            _ => return Ok(()),
        }
    }
}

/// Reads on for every view, and sends the snapshots that became due to everyone connected.
async fn step_all(
    hub: &Arc<Hub>,
    followed: HashMap<ViewKey, Following>,
    sent: &mut Sent,
    floor: Floor,
) -> HashMap<ViewKey, Following> {
    let mut after = HashMap::with_capacity(followed.len());
    for (key, mut following) in followed {
        let (lake, snapshots, keep) = (hub.lake.clone(), snapshots(hub), hub.config.materialize.keep.0);
        let step = tokio::task::spawn_blocking(move || {
            let taken = following.step(&lake, &snapshots, keep, floor);
            (following, taken)
        });
        // A panic in there is our own; passing it on keeps its message.
        let (following, taken) = step.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        match taken {
            Ok(true) => hub.connections.connected().iter().for_each(|device| send(hub, &following, sent, device)),
            Ok(false) => {}
            Err(error) => {
                let error = error.as_ref() as &dyn std::error::Error;
                tracing::warn!(view = key.0, version = key.1, error, "no snapshot of fleet-scope features was taken");
            }
        }
        after.insert(key, following);
    }
    after
}

/// Sends the newest snapshots to a device that reports another, unless they are on their way.
fn answer(
    hub: &Arc<Hub>,
    followed: &HashMap<ViewKey, Following>,
    sent: &mut Sent,
    device: DeviceId,
    has: Option<SnapshotNumber>,
    resend: Duration,
) {
    for following in followed.values() {
        let Some((number, _)) = &following.newest else { continue };
        let was_sent = sent.get(&device).and_then(|views| views.get(&following.key()));
        let is_on_its_way = was_sent.is_some_and(|(sent, when)| sent == number && when.elapsed() < resend);
        if has != Some(*number) && !is_on_its_way {
            send(hub, following, sent, &device);
        }
    }
}

/// Sends a view's newest snapshot. What does not go through is sent again when the device reports.
fn send(hub: &Arc<Hub>, following: &Following, sent: &mut Sent, device: &DeviceId) {
    let Some((number, messages)) = &following.newest else { return };
    let went = messages.iter().try_for_each(|part| hub.connections.send(device, Channel::Features, part.clone()));
    if let Err(error) = went {
        tracing::debug!(%device, %number, error = &error as &dyn std::error::Error, "a snapshot did not go down");
        return;
    }
    sent.entry(device.clone()).or_default().insert(following.key(), (*number, Instant::now()));
}

#[cfg(test)]
mod tests;
