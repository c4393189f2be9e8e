//! A device's state and a hub's ingest on storage that discards what was not synced, joined without a network: from
//! the source's event to the file in the lake, a seed decides when who loses power and which messages are lost,
//! repeated, late or out of order. `TRIBUTARY_SEED=7` runs the story of one seed.

mod device;
mod hub;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;
use tributary_features::{Event, EventId, View};
use tributary_fraud::{Generator, GeneratorConfig, Transaction};
use tributary_wire::{AckV1, StreamName};

use self::device::Device;
use self::hub::Hub;
use crate::tools;

const SEEDS: u64 = 20;
const DEVICES: usize = 2;
const STREAMS: [&str; 2] = ["events", "observations"];
const PATIENCE: Duration = Duration::from_secs(60);

/// What happened in a story.
#[derive(Debug, Default)]
struct Tally {
    accepted: BTreeSet<String>,
    device_power_cuts: u32,
    hub_power_cuts: u32,
    /// Failures of a disk that passed.
    faults: u32,
}

/// Payments of one device in the order of their times, but that some come late.
fn payments(seed: u64, device: usize, view: &View, chance: &mut StdRng) -> Vec<Event> {
    let config = GeneratorConfig { seed, customers: 40, terminals: 20, days: 3, ..GeneratorConfig::default() };
    let mine = |payment: &Transaction| payment.device(DEVICES) == device;
    let mut events: Vec<Event> = Generator::new(config).filter(mine).map(|payment| payment.to_event()).collect();
    for event in &mut events {
        event.id = EventId::new(&format!("{seed}-{device}-{}", event.id)).expect("an id");
    }
    for at in 0..events.len() {
        let to = (at + chance.random_range(1..6)).min(events.len() - 1);
        let newest = events[..=to].iter().map(|event| event.time.0).max().unwrap_or_default();
        if chance.random_bool(0.1) && newest - events[at].time.0 < view.lateness() {
            events[at..=to].rotate_left(1);
        }
    }
    events
}

/// A network's worst: messages in it are lost, repeated, held back and overtake each other.
fn carry<T: Clone>(messages: &mut Vec<T>, chance: &mut StdRng) -> Vec<T> {
    messages.shuffle(chance);
    let mut arrived = Vec::new();
    for message in std::mem::take(messages) {
        match chance.random_range(0..100) {
            0..15 => {}
            15..30 => messages.push(message),
            30..45 => {
                messages.push(message.clone());
                arrived.push(message);
            }
            _ => arrived.push(message),
        }
    }
    arrived
}

struct Story {
    view: View,
    chance: StdRng,
    devices: Vec<Device>,
    hub: Hub,
    /// On the way up and down: the device's place and the message.
    up: Vec<(usize, Vec<u8>)>,
    down: Vec<(usize, AckV1)>,
}

impl Story {
    async fn new(seed: u64) -> Result<Self> {
        let mut chance = StdRng::seed_from_u64(seed);
        let view = View::from_toml(tributary_fraud::VIEW_TOML)?;
        let mut devices = Vec::new();
        for device in 0..DEVICES {
            let events = payments(seed, device, &view, &mut chance);
            devices.push(Device::new(&format!("edge-{device}"), &view, events, &mut chance)?);
        }
        Ok(Self { view, chance, devices, hub: Hub::new().await?, up: Vec::new(), down: Vec::new() })
    }

    /// One step of everyone, with faults.
    async fn step(&mut self) -> Result<()> {
        for device in &mut self.devices {
            if self.chance.random_bool(0.1) {
                device.weaken(&mut self.chance);
            }
            if !device.bring(&mut self.chance).await? {
                device.fail(&mut self.chance)?;
            } else if self.chance.random_bool(0.04) {
                device.lose_power(&mut self.chance)?;
            }
            if self.chance.random_bool(0.04) {
                device.reconnect();
            }
        }
        self.send()?;
        let arrived = carry(&mut self.up, &mut self.chance);
        if self.chance.random_bool(0.2) {
            self.hub.disk.fail_after(self.chance.random_range(0..60));
        }
        // Before the power goes, the hub comes to deal with some of what it was sent.
        let cut = self.chance.random_bool(0.1).then(|| self.chance.random_range(0..=arrived.len() as u64));
        let before = self.hub.taken();
        let total = arrived.len() as u64;
        for (place, batch) in arrived {
            self.hub.take(&self.devices[place].id, batch).await?;
        }
        let stands = self.hub.until(before + cut.unwrap_or(total)).await?;
        self.collect()?;
        if cut.is_some() || !stands && self.chance.random_bool(0.5) {
            self.hub.lose_power().await?;
            self.devices.iter_mut().for_each(Device::reconnect);
        } else if !stands {
            self.hub.mend().await?;
        }
        let arrived = carry(&mut self.down, &mut self.chance);
        self.deliver(arrived)
    }

    /// Whatever may leave is on the way.
    fn send(&mut self) -> Result<()> {
        for (place, device) in self.devices.iter_mut().enumerate() {
            device.wait(Duration::from_millis(self.chance.random_range(100..6000)));
            match device.outgoing() {
                Some(batches) => self.up.extend(batches.into_iter().map(|batch| (place, batch))),
                None => device.fail(&mut self.chance)?,
            }
        }
        Ok(())
    }

    fn collect(&mut self) -> Result<()> {
        for (device, ack) in self.hub.receipts()? {
            let place = self.devices.iter().position(|known| known.id == device).context("a known device")?;
            self.down.push((place, ack));
        }
        Ok(())
    }

    fn deliver(&mut self, acks: Vec<(usize, AckV1)>) -> Result<()> {
        for (place, ack) in acks {
            let device = &mut self.devices[place];
            if !device.hear(&ack) {
                device.fail(&mut self.chance)?;
            }
        }
        Ok(())
    }

    /// Without faults, until nothing waits any more.
    async fn drain(&mut self) -> Result<()> {
        self.hub.lose_power().await?;
        for device in &mut self.devices {
            device.lose_power(&mut self.chance)?;
            device.restart(&mut self.chance)?;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.send()?;
            for (place, batch) in std::mem::take(&mut self.up) {
                self.hub.take(&self.devices[place].id, batch).await?;
            }
            ensure!(self.hub.until(self.hub.taken()).await?, "the hub's disk failed without a fault");
            self.collect()?;
            let acks = std::mem::take(&mut self.down);
            self.deliver(acks)?;
            let waiting: Vec<_> = self.devices.iter_mut().map(Device::waiting).collect();
            if waiting.iter().all(|waiting| *waiting == (0, 0)) {
                return self.hub.stop().await;
            }
            ensure!(Instant::now() < deadline, "batches still wait, records were dropped: {waiting:?}");
        }
    }

    /// Counts the lake against what the sources were told, and replays it.
    fn check(&self) -> Result<Tally> {
        let accepted: BTreeSet<String> = self.devices.iter().flat_map(|device| device.told.clone()).collect();
        for stream in STREAMS {
            let found: BTreeSet<String> = self.hub.counts(&StreamName::new(stream)?)?.into_keys().collect();
            let lost: Vec<_> = accepted.difference(&found).take(5).collect();
            let foreign: Vec<_> = found.difference(&accepted).take(5).collect();
            ensure!(lost.is_empty() && foreign.is_empty(), "{stream}: lost {lost:?}, never accepted {foreign:?}");
        }
        let summary = self.hub.replay(&self.view)?;
        ensure!(
            (summary.compared, summary.mismatches, summary.unfit) == (accepted.len() as u64, 0, 0),
            "features as served are not those of a replay: {summary:?}"
        );
        let device_power_cuts = self.devices.iter().map(|device| device.power_cuts).sum();
        let faults = self.devices.iter().map(|device| device.faults).sum::<u32>() + self.hub.faults;
        Ok(Tally { accepted, device_power_cuts, hub_power_cuts: self.hub.power_cuts, faults })
    }
}

async fn story(seed: u64, copy_to: &Path) -> Result<Tally> {
    let mut story = Story::new(seed).await?;
    while !story.devices.iter().all(Device::is_through) {
        story.step().await?;
    }
    story.drain().await?;
    let tally = story.check()?;
    for stream in STREAMS {
        story.hub.copy(stream, &copy_to.join(stream).join(seed.to_string()))?;
    }
    Ok(tally)
}

/// Says which seed it was, whatever way it fails.
struct Telltale(u64);

impl Drop for Telltale {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("\n!!! this was seed {0}: TRIBUTARY_SEED={0} runs it alone\n", self.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storage_that_discards_unsynced_writes_loses_and_doubles_nothing_from_the_source_to_the_lake() {
    let wanted = crate::tools::number("TRIBUTARY_SEED");
    let lake = tempfile::tempdir().unwrap();
    let mut all = Tally::default();
    for seed in wanted.map_or(0..SEEDS, |seed| seed..seed + 1) {
        let _telltale = Telltale(seed);
        let tally = story(seed, lake.path()).await.unwrap();
        all.accepted.extend(tally.accepted);
        all.device_power_cuts += tally.device_power_cuts;
        all.hub_power_cuts += tally.hub_power_cuts;
        all.faults += tally.faults;
    }
    let (devices, hub, faults) = (all.device_power_cuts, all.hub_power_cuts, all.faults);
    let happened = format!("devices lost power {devices} times, the hub {hub} times, disks failed {faults} times");
    eprintln!("{} events; {happened}", all.accepted.len());
    assert!(wanted.is_some() || devices > 80 && hub > 60 && faults > 40, "too little happened: {happened}");
    let Some(python) = tools::python("the recount after power cuts") else { return };
    for stream in STREAMS {
        let counts = tools::recount(&python, lake.path(), stream);
        assert!(counts.values().all(|count| *count == 1), "{stream}: something is there more than once");
        let found: BTreeSet<String> = counts.into_keys().collect();
        assert!(found == all.accepted, "{stream}: {} events accepted, {} found", all.accepted.len(), found.len());
    }
}

/// A test of the test: were a sync left out in the hub, a story would find it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_only_says_it_synced_is_found_out() {
    let mut found_out = Story::new(1).await.unwrap();
    found_out.hub.disk.set_lying(true);
    let result = async {
        while !found_out.devices.iter().all(Device::is_through) {
            found_out.step().await?;
        }
        found_out.drain().await?;
        found_out.check()
    };
    let error = result.await.unwrap_err();
    assert!(error.to_string().starts_with("files of the lake are missing"), "{error:?}");
}
