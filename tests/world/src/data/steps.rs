//! What happens, one thing at a time.

use std::time::Duration;

use anyhow::{Context, Result};
use tributary_wire::{Ack, AckV1};

use super::device::Device;
use super::{HUB, Happening, World};
use crate::faults::Fault;

/// A connection that is cut is noticed after so long.
pub(super) const NOTICED: Duration = Duration::from_secs(45);
/// How often a hub that has nothing to do looks whether those who hold may go on.
const GO_ON: Duration = Duration::from_secs(1);
/// A program that could not start is started again after so long.
const AGAIN: Duration = Duration::from_secs(10);
/// A pipeline that nobody wakes looks around after so long.
const LOOK: Duration = Duration::from_secs(30);
/// One start of the hub in so many is followed by a look at the whole lake.
const EVERY_START: u64 = 4;

impl World {
    pub(super) fn step(&mut self, what: Happening) -> Result<()> {
        let of = match &what {
            Happening::Bring(device) | Happening::Pipeline(device) | Happening::Down(device, _) => Some(*device),
            Happening::Link(device) | Happening::Connect(device) => Some(*device),
            _ => None,
        };
        let Some(device) = of else { return self.happen(what) };
        // A disk that has not done yet what it was told keeps its device from the next.
        if self.busy[device] > self.now() {
            self.faults.count(Fault::SlowDisk);
            self.schedule.plan(self.busy[device], what);
            return Ok(());
        }
        let before = self.devices[device].disk.syncs();
        self.happen(what)?;
        let Device { disk, setup, .. } = &self.devices[device];
        self.busy[device] = self.now() + setup.sync * disk.syncs().saturating_sub(before) as u32;
        Ok(())
    }

    fn happen(&mut self, what: Happening) -> Result<()> {
        match what {
            Happening::Bring(device) => self.bring(device)?,
            Happening::Pipeline(device) => {
                self.devices[device].work()?;
                self.plan(LOOK, Happening::Pipeline(device));
                self.wake(device, Duration::ZERO);
            }
            Happening::Link(device) => self.link(device)?,
            Happening::Connect(device) => self.connect(device),
            Happening::Notice(device) => {
                let (now, machine) = (self.now(), device + 1);
                let cut = !self.network.passes(now, machine, HUB) || !self.network.passes(now, HUB, machine);
                if self.devices[device].connected && (cut || !self.hub.is_up()) {
                    self.lose_connection(device);
                }
            }
            Happening::Up(device, batch) => self.arrive(device, batch)?,
            Happening::Down(device, receipt) => {
                let Ack::V1(ack) = Ack::decode(&receipt)?;
                self.devices[device].hear(&ack)?;
                self.after_link(device);
                self.wake(device, Duration::ZERO);
            }
            Happening::Hub => {
                // Only the earliest that was planned counts.
                if self.hub_wakes == self.now() {
                    self.hub_wakes = Duration::MAX;
                    self.group()?;
                }
            }
            Happening::Committed => self.commit()?,
            Happening::HubStarts => {
                let started = self.hub.start().context("the hub starts")?;
                self.note(format_args!("the hub starts: {started}"));
                if started {
                    // Reading the whole lake is dear.
                    if self.hub_starts.is_multiple_of(EVERY_START) || self.earlier.unseen {
                        self.check_often()?;
                    }
                    self.hub_starts += 1;
                } else {
                    self.plan(AGAIN, Happening::HubStarts);
                }
            }
            Happening::DeviceStarts(device) => {
                if !self.devices[device].is_up() {
                    self.devices[device].restart().with_context(|| format!("edge-{device} starts"))?;
                    self.wake_up(device)?;
                }
            }
            Happening::Fault => self.fault()?,
            Happening::Mend(HUB) => self.hub.mend_disk(),
            Happening::RotMended => self.hub.mend_rot()?,
            Happening::Mend(machine) => {
                let disk = &self.devices[machine - 1].disk;
                disk.mend();
                disk.set_capacity(None);
            }
            Happening::ClockRight(HUB) => self.hub.clock.set_error(0),
            Happening::ClockRight(machine) => self.devices[machine - 1].clock.set_error(0),
            Happening::Peace => self.make_peace()?,
        }
        Ok(())
    }

    fn bring(&mut self, device: usize) -> Result<()> {
        if self.devices[device].is_through() {
            return Ok(());
        }
        let answered = self.devices[device].bring()?;
        let told = self.devices[device].told.len();
        self.note(format_args!("edge-{device} answers: {answered}; {told} durable"));
        let wait = self.up_to(Duration::from_secs(600));
        self.plan(wait, Happening::Bring(device));
        self.wake(device, Duration::ZERO);
        Ok(())
    }

    /// Asks the link of a device at this moment what leaves, if nothing earlier is planned.
    fn wake(&mut self, device: usize, after: Duration) {
        let at = self.now() + after;
        if self.devices[device].connected && (at < self.wakes[device] || self.wakes[device] < self.now()) {
            self.wakes[device] = at;
            self.plan(after, Happening::Link(device));
        }
    }

    fn link(&mut self, device: usize) -> Result<()> {
        if self.wakes[device] == self.now() {
            self.wakes[device] = Duration::MAX;
        }
        if !self.devices[device].connected {
            return Ok(());
        }
        let Some((batches, wait)) = self.devices[device].outgoing()? else {
            self.after_link(device);
            return Ok(());
        };
        for batch in batches {
            self.note(format_args!("edge-{device} sends {} bytes", batch.len()));
            for at in self.network.send(self.now(), device + 1, HUB, batch.len(), &mut self.faults) {
                self.travelling[device] += 1;
                self.schedule.plan(at, Happening::Up(device, batch.clone()));
            }
        }
        self.wake(device, wait.max(Duration::from_millis(1)));
        Ok(())
    }

    /// A disk that fails ends the connection.
    fn after_link(&mut self, device: usize) {
        if !self.devices[device].connected {
            self.lose_connection(device);
        }
    }

    fn lose_connection(&mut self, device: usize) {
        self.devices[device].disconnected();
        let wait = self.devices[device].next_attempt(false);
        self.attempt(device, wait);
    }

    /// A device whose life began anew has no connection yet; one that could not begin tries again. A state that is broken
    /// is set aside, as the doctor does it.
    pub(super) fn wake_up(&mut self, device: usize) -> Result<()> {
        (self.wakes[device], self.busy[device]) = (Duration::MAX, Duration::ZERO);
        if self.devices[device].is_broken() {
            self.faults.count(Fault::StateSetAside);
            self.note(format_args!("the state of edge-{device} is broken, and set aside"));
            return self.replace_disk(device);
        }
        if self.devices[device].is_up() {
            self.attempt(device, Duration::from_secs(1));
        } else {
            self.note(format_args!("edge-{device} cannot start"));
            self.plan(AGAIN, Happening::DeviceStarts(device));
        }
        Ok(())
    }

    pub(super) fn attempt(&mut self, device: usize, after: Duration) {
        if !std::mem::replace(&mut self.connecting[device], true) {
            self.plan(after, Happening::Connect(device));
        }
    }

    fn connect(&mut self, device: usize) {
        self.connecting[device] = false;
        let now = self.now();
        let passes = self.network.passes(now, device + 1, HUB) && self.network.passes(now, HUB, device + 1);
        if self.devices[device].connected || !self.devices[device].is_up() {
            return;
        }
        if passes && self.hub.is_up() {
            self.devices[device].connect();
            self.note(format_args!("edge-{device} connects"));
            self.wake(device, Duration::ZERO);
        } else {
            let wait = self.devices[device].next_attempt(true);
            self.attempt(device, wait);
        }
    }

    fn arrive(&mut self, device: usize, batch: Vec<u8>) -> Result<()> {
        self.travelling[device] -= 1;
        if !self.hub.is_up() {
            return Ok(());
        }
        let id = self.devices[device].id.clone();
        let early = self.hub.take(&id, batch)?;
        if let Some(ack) = early {
            self.answer(device, ack);
        }
        self.wake_hub();
        Ok(())
    }

    /// Plans what the hub does next, unless it does something earlier.
    fn wake_hub(&mut self) {
        if let Some(at) = self.hub.next() {
            self.wake_hub_at(at);
        }
    }

    fn wake_hub_at(&mut self, at: Duration) {
        let at = at.max(self.now());
        if at < self.hub_wakes {
            self.hub_wakes = at;
            self.schedule.plan(at, Happening::Hub);
        }
    }

    /// The hub deals with a group that has closed, now or, when it is slow, some time later.
    fn group(&mut self) -> Result<()> {
        match self.hub.take_up()? {
            Some(takes) => {
                self.faults.count(Fault::SlowCommit);
                self.plan(takes, Happening::Committed);
                Ok(())
            }
            None => self.commit(),
        }
    }

    /// The hub commits what it has, and its receipts leave.
    pub(super) fn commit(&mut self) -> Result<()> {
        for (id, ack) in self.hub.work()? {
            let device = self.devices.iter().position(|device| device.id == id).context("a known device")?;
            self.answer(device, ack);
        }
        if self.hub.slows_down() && !self.hub.is_holding() {
            self.wake_hub_at(self.now() + GO_ON);
        }
        self.wake_hub();
        Ok(())
    }

    fn answer(&mut self, device: usize, ack: AckV1) {
        self.note(format_args!("the hub answers edge-{device}: {ack:?}"));
        let receipt = Ack::V1(ack).encode();
        for at in self.network.send(self.now(), HUB, device + 1, receipt.len(), &mut self.faults) {
            self.schedule.plan(at, Happening::Down(device, receipt.clone()));
        }
    }
}
