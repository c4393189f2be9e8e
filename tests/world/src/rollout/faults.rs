//! What goes wrong, as the seed says.

use std::io;
use std::time::Duration;

use rand::Rng;
use tributary_process::disk::Disk;
use tributary_wire::Micros;

use super::hub::Death;
use super::world::{Event, START, World};
use crate::network::Quality;

/// Faults that end.
#[derive(Debug, Clone, Hash)]
pub(super) enum Mend {
    /// There is room again.
    Room(usize),
    /// Whoever sat on the way is gone.
    Attacker(usize),
}

impl World {
    /// One more fault, and when the next one comes.
    pub(super) fn fault(&mut self) {
        if !self.is_rough() {
            return self.heal();
        }
        let number = self.chance.random_range(0..self.devices.len());
        match self.chance.random_range(0..20) {
            0 | 1 => {
                let until = self.at + self.span(5_000, 1_200_000);
                self.network.cut(number + 1, 0, until);
                self.network.cut(0, number + 1, until);
                self.figures.add("partitions");
            }
            2 => {
                let until = self.at + self.span(5_000, 900_000);
                match self.chance.random_bool(0.5) {
                    true => self.network.cut(number + 1, 0, until),
                    false => self.network.cut(0, number + 1, until),
                }
                self.figures.add("cuts in one direction");
            }
            3 | 4 => {
                let quality = Quality::any(&mut self.chance);
                self.network.set_quality(number + 1, quality);
                self.figures.add("changes of a way's quality");
            }
            5 | 6 => {
                self.kill(number);
                self.figures.add("killed agents");
            }
            7 => {
                self.cut_power(number);
                self.figures.add("power cuts of a device");
            }
            8 | 9 => {
                let operations = self.chance.random_range(0..60);
                self.devices[number].disk.fail_after(operations);
            }
            10 => {
                let disk = &self.devices[number].disk;
                let room = self.chance.random_range(0..200_000);
                disk.set_capacity(Some(disk.used() + room));
                let wait = self.span(5_000, 900_000);
                self.after(wait, Event::Mend(Mend::Room(number)));
                self.figures.add("full disks of a device");
            }
            11 => {
                let kind = [io::ErrorKind::Other, io::ErrorKind::StorageFull][self.chance.random_range(0..2)];
                let after = self.chance.random_range(0..40);
                self.devices[number].disk.fail_once(after, kind);
                self.figures.add("single operations of a device's disk");
            }
            12 => self.rot(number),
            13 | 14 => self.jump(number),
            15 => self.wipe(number),
            16 => self.hub_fault(),
            17 | 18 => self.attack(number),
            _ => {
                for _ in 0..self.chance.random_range(1..4) {
                    self.replay(number);
                }
            }
        }
        let wait = self.span(1_000, 120_000);
        self.after(wait, Event::Fault);
    }

    /// A bit of a committed package flips; it is found when the file is next read.
    fn rot(&mut self, number: usize) {
        let Some(life) = &self.devices[number].life else { return };
        let committed = life.lines.updaters().find_map(|(_, updater)| updater.record().committed.clone());
        let Some(release) = committed else { return };
        let path = life.files.path(&release.sha256);
        let byte = self.chance.random_range(0..release.length) as usize;
        if self.devices[number].disk.rot(&path, byte).is_ok() {
            self.watches[number].rotten.insert(release.sha256);
            self.figures.add("rotten packages");
        }
    }

    fn jump(&mut self, number: usize) {
        let far = [60, 3_600, 86_400, 40 * 86_400, 400 * 86_400][self.chance.random_range(0..5)];
        let seconds = self.chance.random_range(-far..=far);
        self.devices[number].clocks.jump_to(seconds * Micros::SECOND);
        self.figures.add("jumps of a wall clock");
    }

    fn wipe(&mut self, number: usize) {
        self.devices[number].life = None;
        let disk = std::mem::take(&mut self.devices[number].disk);
        self.figures.faults.count_harm(disk.harm());
        self.watches[number] = Default::default();
        let wait = self.span(1_000, 60_000);
        self.after(wait, Event::Start(number));
        self.figures.add("wiped devices");
    }

    fn hub_fault(&mut self) {
        match (self.chance.random_range(0..4), &self.backup) {
            (0, Some(backup)) => {
                let (backup, expires) = (backup.clone(), self.expires());
                self.hub.restore(backup, expires, self.now);
                self.figures.add("hubs restored from a backup");
            }
            (1, _) => self.hub.dies = Some(Death::Before),
            (2, _) => self.hub.dies = Some(Death::After),
            _ => self.hub.up = false,
        }
        self.figures.add("deaths of the hub");
    }

    fn attack(&mut self, number: usize) {
        match self.chance.random_range(0..3) {
            0 => {
                self.attackers[number].spoils = true;
                self.figures.add("spoilt downloads");
            }
            1 => {
                self.attackers[number].repository = Some(self.hub.record.repository.forged());
                self.figures.add("metadata of a stranger");
            }
            _ => {
                let old = self.backup.as_ref().map(|backup| backup.repository.files());
                self.attackers[number].repository = old;
                self.figures.add("metadata of yesterday");
            }
        }
        let wait = self.span(30_000, 1_200_000);
        self.after(wait, Event::Mend(Mend::Attacker(number)));
    }

    pub(super) fn mend(&mut self, mend: Mend) {
        match mend {
            Mend::Room(number) => self.devices[number].disk.set_capacity(None),
            Mend::Attacker(number) => {
                (self.attackers[number].spoils, self.attackers[number].repository) = (false, None);
            }
        }
    }

    /// Every fault ends.
    fn heal(&mut self) {
        self.network.mend();
        for number in 0..self.devices.len() {
            self.mend(Mend::Room(number));
            self.mend(Mend::Attacker(number));
            self.devices[number].disk.mend();
            self.devices[number].clocks.jump_to(0);
        }
        self.hub.dies = None;
        debug_assert!(self.now > START);
        self.after(Duration::from_secs(1), Event::Renew);
    }

    /// Files of a disk, for messages.
    pub(super) fn files(&self, number: usize) -> String {
        self.devices[number].disk.list(std::path::Path::new("/packages")).unwrap_or_default().join(" ")
    }
}
