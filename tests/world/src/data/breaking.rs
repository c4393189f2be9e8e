//! Faults, until there are no more.

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::Rng;
use rand::rngs::StdRng;

use super::hub::Hub;
use super::setup::{self, Breakage};
use super::steps::NOTICED;
use super::{HUB, Happening, World};
use crate::faults::Fault;
use crate::network::Quality;

/// How far a clock that is wrong may be off: a dozen years.
const ERROR: i64 = 400_000_000_000_000;

/// How often each kind comes, compared with the others.
const WEIGHTS: [(Fault, u32); 21] = [
    (Fault::Partition, 10),
    (Fault::OneWayCut, 10),
    (Fault::OtherQuality, 12),
    (Fault::DevicePowerCut, 25),
    (Fault::DeviceDiskFailed, 8),
    (Fault::DeviceDiskHiccup, 10),
    (Fault::DeviceDiskFull, 8),
    (Fault::HubPowerCut, 12),
    (Fault::HubDiskFailed, 8),
    (Fault::HubDiskFull, 6),
    (Fault::ClockJump, 5),
    (Fault::HubClockJump, 2),
    (Fault::Restart, 6),
    (Fault::NewDisk, 2),
    (Fault::HubDiskHiccup, 8),
    (Fault::Kill, 15),
    (Fault::HubKill, 8),
    (Fault::CatalogLost, 2),
    (Fault::LakeRot, 5),
    (Fault::OtherSampling, 5),
    (Fault::DeviceRot, 6),
];

/// What it takes for a program to believe what its disk failed to write, and then to lose it: seldom together among all.
const AFTER_FAILED_SYNCS: [(Fault, u32); 3] =
    [(Fault::DeviceDiskHiccup, 2), (Fault::Kill, 1), (Fault::DevicePowerCut, 1)];

/// The faults of a world in which this is broken: all, or those alone that can show it.
pub(super) fn weights(breakage: Option<Breakage>) -> &'static [(Fault, u32)] {
    match breakage {
        Some(Breakage::BelievesItsEyes) => &AFTER_FAILED_SYNCS,
        _ => &WEIGHTS,
    }
}

/// How often faults come, at the mean; as often as they ever do when it takes several in a row.
pub(super) fn every(breakage: Option<Breakage>, chance: &mut StdRng) -> Duration {
    let drawn = Duration::from_secs([60, 240, 1200][chance.random_range(0..3)]);
    if breakage == Some(Breakage::BelievesItsEyes) { Duration::from_secs(30) } else { drawn }
}

impl World {
    fn any_fault(&mut self) -> Fault {
        let all: u32 = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.chance.random_range(0..all);
        for (fault, weight) in self.weights {
            if drawn < *weight {
                return *fault;
            }
            drawn -= weight;
        }
        Fault::DevicePowerCut
    }

    /// One fault, and when the next one comes.
    pub(super) fn fault(&mut self) -> Result<()> {
        if self.peace {
            return Ok(());
        }
        let again = self.up_to(2 * self.fault_every);
        self.plan(again, Happening::Fault);
        let device = self.chance.random_range(0..self.devices.len());
        let longest = [Duration::from_secs(10), Duration::from_secs(1800)][self.chance.random_range(0..2)];
        let lasts = self.up_to(longest);
        let mut fault = self.any_fault();
        if fault == Fault::CatalogLost && !self.hub.takes_catalog() {
            fault = Fault::HubPowerCut;
        }
        self.note(format_args!("fault: {fault}, edge-{device}, {lasts:?}"));
        if self.strike(fault, device, lasts).with_context(|| format!("edge-{device}, {fault}"))? {
            self.faults.count(fault);
        }
        Ok(())
    }

    /// Whether there was something to break.
    fn strike(&mut self, fault: Fault, device: usize, lasts: Duration) -> Result<bool> {
        let (until, machine) = (self.now() + lasts, device + 1);
        match fault {
            Fault::Partition => {
                self.network.cut(HUB, machine, until);
                self.network.cut(machine, HUB, until);
                self.plan(NOTICED, Happening::Notice(device));
            }
            Fault::OneWayCut => {
                let (from, to) = if self.chance.random_bool(0.5) { (HUB, machine) } else { (machine, HUB) };
                self.network.cut(from, to, until);
                self.plan(NOTICED, Happening::Notice(device));
            }
            Fault::OtherQuality => {
                let quality = Quality::any(&mut self.chance);
                self.network.set_quality(machine, quality);
            }
            Fault::DevicePowerCut => {
                if self.chance.random_bool(0.5) {
                    // In the middle of what the device does at this moment.
                    self.devices[device].disk.fail_after(self.chance.random_range(0..40));
                    self.devices[device].bring()?;
                    self.devices[device].work()?;
                }
                self.devices[device].lose_power()?;
                self.wake_up(device)?;
            }
            Fault::DeviceDiskFailed => {
                self.devices[device].disk.fail_after(self.chance.random_range(0..200));
                self.plan(lasts, Happening::Mend(machine));
            }
            Fault::DeviceDiskHiccup => {
                let after = self.chance.random_range(0..100);
                self.devices[device].disk.fail_once(after, ErrorKind::Other);
            }
            Fault::DeviceDiskFull => {
                let disk = &self.devices[device].disk;
                disk.set_capacity(Some(disk.used() + self.chance.random_range(0..20_000)));
                self.plan(lasts, Happening::Mend(machine));
            }
            Fault::HubPowerCut => {
                if self.chance.random_bool(0.5) {
                    self.hub.fail_disk(self.chance.random_range(0..60));
                    self.hub.close_group();
                    self.commit()?;
                    self.plan(lasts, Happening::Mend(HUB));
                }
                return self.hub_goes(lasts, Hub::lose_power);
            }
            Fault::HubDiskFailed => {
                self.hub.fail_disk(self.chance.random_range(0..60));
                self.plan(lasts, Happening::Mend(HUB));
            }
            Fault::HubDiskHiccup => self.hub.fail_once(self.chance.random_range(0..60)),
            Fault::HubDiskFull => {
                self.hub.fill_disk(self.chance.random_range(0..40_000));
                self.plan(lasts, Happening::Mend(HUB));
            }
            Fault::ClockJump => {
                self.devices[device].clock.set_error(self.chance.random_range(-ERROR..ERROR));
                self.plan(lasts, Happening::ClockRight(machine));
            }
            Fault::HubClockJump => {
                self.hub.clock.set_error(self.chance.random_range(-ERROR..ERROR));
                self.plan(lasts, Happening::ClockRight(HUB));
            }
            Fault::Restart => {
                self.devices[device].restart()?;
                self.wake_up(device)?;
            }
            Fault::NewDisk => self.replace_disk(device)?,
            Fault::Kill => {
                if self.chance.random_bool(0.5) {
                    self.devices[device].disk.kill_after(self.chance.random_range(0..40));
                    self.devices[device].bring()?;
                    self.devices[device].work()?;
                }
                self.devices[device].kill()?;
                self.wake_up(device)?;
            }
            Fault::DeviceRot => {
                let rotten = if self.chance.random_bool(0.7) {
                    // Behind one that is on its way the gap in its place could come in first.
                    let sent = self.travelling[device] == 0;
                    self.devices[device].rot_batch(sent)?
                } else {
                    self.devices[device].rot_anywhere()?.map(|at| format!("byte {at}"))
                };
                let Some(rotten) = rotten else { return Ok(false) };
                self.note(format_args!("a bit of {rotten} flips"));
                self.wake_up(device)?;
            }
            Fault::HubKill => {
                if self.hub.is_up() && self.chance.random_bool(0.5) {
                    self.hub.kill_after(self.chance.random_range(0..60));
                    self.hub.close_group();
                    self.commit()?;
                }
                return self.hub_goes(lasts, Hub::kill);
            }
            Fault::CatalogLost => return self.hub_goes(lasts, Hub::lose_catalog),
            Fault::LakeRot => {
                let Some(path) = self.hub.rot()? else { return Ok(false) };
                self.note(format_args!("a bit of {path} flips"));
                self.plan(lasts, Happening::RotMended);
            }
            Fault::OtherSampling => {
                let policy = setup::policy(&mut self.chance);
                self.note(format_args!("edge-{device} samples: {policy:?}"));
                self.devices[device].sample(policy);
            }
            // The quality of a way decides about these.
            Fault::MessageLost | Fault::MessageRepeated | Fault::MessageCut | Fault::MessageOvertook => {}
            // These come by themselves.
            Fault::StateSetAside | Fault::SlowCommit | Fault::SlowDisk => {}
            Fault::Forgotten | Fault::Torn | Fault::ShortWrite => {}
        }
        Ok(true)
    }

    /// A device goes on with an empty disk; what it had answered for counts as far as the lake has it.
    pub(super) fn replace_disk(&mut self, device: usize) -> Result<()> {
        self.look_before_loss(device)?;
        let had = self.devices[device].lose_disk()?;
        self.earlier.told.extend(had);
        self.plan_clock(device);
        self.wake_up(device)
    }

    /// A device without a clock learns the time some minutes after it began with nothing.
    pub(super) fn plan_clock(&mut self, device: usize) {
        if self.devices[device].setup.no_clock {
            let wait = self.up_to(Duration::from_secs(600));
            self.plan(wait, Happening::ClockRight(device + 1));
        }
    }

    fn hub_goes(&mut self, lasts: Duration, how: impl FnOnce(&mut Hub) -> Result<()>) -> Result<bool> {
        if !self.hub.is_up() {
            return Ok(false);
        }
        how(&mut self.hub)?;
        self.plan(lasts, Happening::HubStarts);
        for device in 0..self.devices.len() {
            // A machine that is gone sends no word of it.
            self.plan(NOTICED, Happening::Notice(device));
        }
        Ok(true)
    }

    /// Everything works from now on.
    pub(super) fn make_peace(&mut self) -> Result<()> {
        self.peace = true;
        self.note(format_args!("peace"));
        self.network.mend();
        self.step(Happening::Mend(HUB))?;
        self.step(Happening::RotMended)?;
        self.step(Happening::ClockRight(HUB))?;
        for device in 0..self.devices.len() {
            self.step(Happening::Mend(device + 1))?;
            self.step(Happening::ClockRight(device + 1))?;
            if !self.devices[device].connected {
                self.attempt(device, Duration::ZERO);
            }
        }
        Ok(())
    }
}
