//! The way between a device and its hub, and who may sit on it.

use std::sync::Arc;
use std::time::Duration;

use edge_agent_core::lines::Input;
use rand::Rng;
use tributary_release::chain::forge::MemoryRepository;

use super::world::{Event, World};

/// The hub among the machines; devices follow.
const HUB: usize = 0;
/// After this long without an answer a connection is given up.
const KEEP_ALIVE: Duration = Duration::from_secs(45);
/// Messages that somebody on the way remembers.
const REMEMBERED: usize = 40;

/// What somebody on the way does to a device's traffic.
#[derive(Debug, Default)]
pub(super) struct Attacker {
    /// Packages arrive with a flipped bit.
    pub(super) spoils: bool,
    /// Metadata of his choice, in place of the hub's.
    pub(super) repository: Option<Arc<MemoryRepository>>,
    /// Assignments that passed by, of this device and others.
    pub(super) heard: Vec<Vec<u8>>,
}

impl World {
    /// Whether something could pass now, both ways.
    fn passes(&self, number: usize) -> bool {
        let device = number + 1;
        let ways = self.network.passes(self.at, device, HUB) && self.network.passes(self.at, HUB, device);
        ways && self.hub.up
    }

    /// Whether the hub's files reach a device.
    pub(super) fn reaches(&self, number: usize) -> bool {
        self.passes(number)
    }

    fn travel(&mut self, number: usize, bytes: usize, up: bool) -> Vec<Duration> {
        let device = number + 1;
        let (from, to) = if up { (device, HUB) } else { (HUB, device) };
        self.network.send(self.at, from, to, bytes, &mut self.figures.faults)
    }

    /// A message of the hub leaves.
    pub(super) fn send_down(&mut self, number: usize, bytes: Vec<u8>) {
        for attacker in &mut self.attackers {
            // Who listens hears what is for others too.
            if attacker.heard.len() < REMEMBERED {
                attacker.heard.push(bytes.clone());
            }
        }
        for at in self.travel(number, bytes.len(), false) {
            self.plan(at, Event::Down(number, bytes.clone()));
        }
    }

    /// The device says where it stands.
    pub(super) fn report(&mut self, number: usize) {
        let connected = self.devices[number].life.as_ref().is_some_and(|life| life.connected);
        if !connected {
            return;
        }
        let boot = self.devices[number].lives;
        let Some(report) = self.devices[number].report(boot) else { return };
        let bytes = report.encode();
        for at in self.travel(number, bytes.len(), true) {
            self.plan(at, Event::Up(number, bytes.clone()));
        }
    }

    /// An attempt to connect. Every connection begins with a report.
    pub(super) fn connect(&mut self, number: usize) -> Result<(), String> {
        let passes = self.passes(number);
        let lives = self.devices[number].lives;
        let life = self.life(number);
        if life.connected {
            return Ok(());
        }
        if !passes {
            let wait = life.backoff.next_wait();
            self.after(wait, Event::Connect(number, lives));
            return Ok(());
        }
        life.backoff.reset();
        life.connected = true;
        if !self.breaks(super::Breakage::SkipsTheAsk) {
            self.tell(number, Input::Online(true))?;
        }
        self.report(number);
        self.after(KEEP_ALIVE, Event::KeepAlive(number, lives));
        Ok(())
    }

    /// Whether the hub still answers.
    pub(super) fn keep_alive(&mut self, number: usize) -> Result<(), String> {
        let passes = self.passes(number);
        let lives = self.devices[number].lives;
        if passes {
            self.after(KEEP_ALIVE, Event::KeepAlive(number, lives));
            return Ok(());
        }
        let life = self.life(number);
        life.connected = false;
        let wait = life.backoff.next_wait();
        self.tell(number, Input::Online(false))?;
        self.after(wait, Event::Connect(number, lives));
        Ok(())
    }

    /// What a device would see of the repository now.
    pub(super) fn show_repository(&mut self, number: usize) {
        let files = self.attackers[number].repository.clone().unwrap_or_else(|| self.hub.record.repository.files());
        self.devices[number].shelf.show(files, self.reaches(number));
    }

    /// Somebody sends a device what he heard before, sometimes changed.
    pub(super) fn replay(&mut self, number: usize) {
        let heard = &self.attackers[number].heard;
        if heard.is_empty() {
            return;
        }
        let mut bytes = heard[self.chance.random_range(0..heard.len())].clone();
        if self.chance.random_bool(0.3) {
            let place = self.chance.random_range(0..bytes.len());
            bytes[place] ^= 1 << self.chance.random_range(0..8);
        }
        self.figures.add("replayed or changed assignments");
        let wait = self.span(1, 1_000);
        self.after(wait, Event::Down(number, bytes));
    }
}
