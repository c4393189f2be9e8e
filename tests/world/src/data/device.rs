//! A device over all its lives: the store, pipeline and outbox that ship, on a disk that fails.

mod bring;
mod life;
mod link;
mod rot;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use edge_agent::state::simdisk::{self, SimDisk};
use edge_agent_core::backoff::Backoff;
use rand::Rng;
use rand::rngs::StdRng;
use tributary_features::{Event, View};
use tributary_process::disk::Harm;
use tributary_wire::{DeviceId, Incarnation, SamplingPolicy};

use super::setup::{Breakage, Setup, Source};
use super::source;
use super::watch::Watch;
use crate::clock::{BEGINNING, WorldClock};
use life::{Begun, Life};

/// The device.
pub struct Device {
    /// Its name.
    pub id: DeviceId,
    /// Its clock.
    pub clock: WorldClock,
    /// Its disk.
    pub disk: SimDisk,
    /// What its earlier disks did to writes.
    harm: Harm,
    /// How it is set up.
    pub setup: Setup,
    breakage: Option<Breakage>,
    view: View,
    /// In the order in which the source brings them.
    events: Vec<Event>,
    /// So many of them were answered as durable.
    answered: usize,
    /// Where the present state began.
    first: usize,
    /// How often its state was lost as a whole.
    pub state: u32,
    /// Ids of those that this state answered as durable.
    pub told: BTreeSet<String>,
    /// Ids of those that the source ever brought.
    pub brought: BTreeSet<String>,
    watch: Watch,
    life: Option<Life>,
    /// Whether a bit of this disk ever flipped: then its state may be broken.
    rotten: bool,
    /// Whether its state is broken: somebody has to set it aside.
    broken: bool,
    chance: StdRng,
    backoff: Backoff,
    /// The version that serves, when a package does.
    package: u32,
    /// What the hub says about sampling, once it said something.
    policy: Option<SamplingPolicy>,
    /// Whether a connection to the hub stands.
    pub connected: bool,
    /// Since when the newest one stands, or stood.
    connected_at: Duration,
}

impl Device {
    /// A device that begins.
    pub fn new(
        id: DeviceId,
        clock: WorldClock,
        view: &View,
        events: Vec<Event>,
        mut chance: StdRng,
        breakage: Option<Breakage>,
    ) -> Result<Self> {
        let mut setup = Setup::any(&mut chance);
        if breakage == Some(Breakage::ForgetsAnswers) {
            (setup.source, setup.remember_events) = (Source::Caller, 1);
        }
        if breakage == Some(Breakage::ReadsTwice) {
            setup.source = Source::Reader;
        }
        let backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60), chance.random());
        let mut device = Self {
            id,
            clock,
            disk: SimDisk::new(),
            harm: Harm::default(),
            setup,
            breakage,
            view: view.clone(),
            events,
            answered: 0,
            first: 0,
            state: 0,
            told: BTreeSet::new(),
            brought: BTreeSet::new(),
            watch: Watch::new(Incarnation(0)),
            life: None,
            rotten: false,
            broken: false,
            chance,
            backoff,
            package: 1,
            policy: None,
            connected: false,
            connected_at: Duration::ZERO,
        };
        device.new_disk()?;
        Ok(device)
    }

    fn new_disk(&mut self) -> Result<()> {
        self.harm = self.harm();
        self.disk = SimDisk::new();
        self.disk.set_lying(self.breakage == Some(Breakage::DeviceDiskLies));
        if self.setup.short_writes {
            self.disk.set_short_writes(Some(self.chance.random()));
        }
        if self.setup.no_clock {
            self.clock.set_error(-BEGINNING - self.clock.now().as_micros() as i64);
        }
        self.begin()
    }

    /// Begins a life, in which everything that was answered as durable must be known. Without one when the disk fails.
    fn begin(&mut self) -> Result<()> {
        self.connected = false;
        self.life = None;
        if self.breakage == Some(Breakage::BelievesItsEyes) {
            simdisk::pretend_closed(&self.disk);
        }
        let life = match Life::begin(self)? {
            Begun::Life(life) => *life,
            Begun::Refused => return Ok(()),
            Begun::Broken(_) if self.rotten => {
                self.broken = true;
                return Ok(());
            }
            Begun::Broken(error) => return Err(error),
        };
        life.serving.sample(self.policy.as_ref());
        let incarnation = life.store.incarnation();
        if self.watch.incarnation() != incarnation {
            ensure!(self.told.is_empty(), "{}: the state began anew by itself", self.id);
            self.watch = Watch::new(incarnation);
        }
        self.watch.began();
        self.life = Some(life);
        if self.setup.source == Source::Reader {
            self.position()?;
        } else if self.breakage != Some(Breakage::ForgetsAnswers) {
            let store = self.life().store.clone();
            for id in &self.told {
                ensure!(store.answer(id)?.is_some(), "{id} was answered as durable; after a start it is not known");
            }
        }
        Ok(())
    }

    /// Whether it runs: it has power, and could read its state.
    pub fn is_up(&self) -> bool {
        self.life.is_some()
    }

    /// What its disks did to writes so far.
    pub fn harm(&self) -> Harm {
        let mut harm = self.harm;
        harm += self.disk.harm();
        harm
    }

    /// Whether it refuses to start with its state, however often it is tried.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    fn life(&mut self) -> &mut Life {
        self.life.as_mut().expect("the power is on between two calls")
    }

    /// What every id begins with that the present state accepts.
    pub fn prefix(&self) -> String {
        source::prefix(self.id.as_str(), self.state)
    }

    /// Which incarnation of its state this is.
    pub fn incarnation(&self) -> Incarnation {
        self.watch.incarnation()
    }

    /// Whether the source is through.
    pub fn is_through(&self) -> bool {
        self.answered == self.events.len()
    }

    /// Whether nothing waits any more: neither in the outbox nor for a batch to close.
    pub fn is_at_rest(&mut self) -> Result<bool> {
        if !self.is_up() {
            return Ok(false);
        }
        // A package that was put in place since finishes the sketches of the one before it, in the turn after the one that
        // finds it: they have to leave, too.
        self.work()?;
        self.work()?;
        let loaded = self.life().store.load()?;
        let waiting = self.life().store.outbox_size().0;
        Ok(self.is_through() && waiting == 0 && loaded.batched_through + 1 == loaded.next)
    }

    /// What waits, in words.
    pub fn waiting(&mut self) -> Result<String> {
        let loaded = self.life().store.load()?;
        let waiting = self.life().store.outbox_size().0;
        Ok(format!("{waiting} batches, records {} to {} in none", loaded.batched_through + 1, loaded.next))
    }

    /// The pipeline does what is due.
    pub fn work(&mut self) -> Result<()> {
        if let Some(life) = &mut self.life {
            life.pipeline.step().context("the pipeline stopped by itself")?;
        }
        Ok(())
    }

    /// The power goes and comes back. What was not synced is lost, or some of it.
    pub fn lose_power(&mut self) -> Result<()> {
        let seed = self.chance.random_bool(0.7).then(|| self.chance.random());
        // Before the program's end, which would close the state in good order.
        self.disk.crash(seed);
        self.begin()
    }

    /// The program is killed and started again; the machine goes on.
    pub fn kill(&mut self) -> Result<()> {
        self.disk.kill();
        self.begin()
    }

    /// The hub's policy is another one.
    pub fn sample(&mut self, policy: SamplingPolicy) {
        if let Some(life) = &self.life {
            life.serving.sample(Some(&policy));
        }
        self.policy = Some(policy);
    }

    /// The disk is replaced by an empty one. Which events it had answered for.
    pub fn lose_disk(&mut self) -> Result<BTreeSet<String>> {
        (self.life, self.rotten, self.broken) = (None, false, false);
        self.state += 1;
        self.first = self.answered;
        let had = std::mem::take(&mut self.told);
        self.new_disk()?;
        Ok(had)
    }

    /// Stops in good order, which closes the batch that is open, and starts again. A program that a failing disk keeps
    /// from stopping is killed, as by whatever watches over it.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        self.begin()
    }

    fn stop(&mut self) {
        if let Some(life) = &mut self.life {
            life.serving.stop();
            if life.pipeline.step().is_some() {
                self.disk.kill();
            }
        }
    }

    /// What became of what the present state accepted, as it says itself.
    pub fn kept_back(&mut self) -> Result<life::KeptBack> {
        let uncounted = self.breakage == Some(Breakage::DropsUncounted);
        let reasons = self.setup.reasons;
        let mut kept_back = self.life().kept_back(reasons)?;
        if uncounted {
            kept_back.dropped.clear();
        }
        if self.breakage == Some(Breakage::SketchesUncounted) {
            kept_back.sketched = 0;
        }
        if self.breakage == Some(Breakage::LeavesOutUncounted) {
            kept_back.left_out = 0;
        }
        Ok(kept_back)
    }
}
