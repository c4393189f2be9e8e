//! The world: a queue of events over one virtual time, and the shells that carry out what the cores say.

use std::collections::BTreeMap;
use std::time::Duration;

use edge_agent_core::lines::{Input, Of};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tributary_release::SigningKey;
use tributary_wire::{Assignment, Micros, ReleaseRef, Role, Sha256, SignedAssignment};

use super::checks::{Ledger, Watch};
use super::device::{Device, at_once};
use super::figures::Figures;
use super::hub::{Hub, Outgoing};
use super::links::Attacker;
use super::operator::Operator;
use super::packages::Repository;
use super::record::Record;
use super::{Breakage, Settings};
use crate::network::Network;
use crate::schedule::Schedule;
use crate::trace::Trace;

/// When every world begins: some weeks after this source was built.
pub(super) const START: Micros = Micros(tributary_identity::BUILT.0 + 20 * Micros::DAY);
/// A report is sent at least this often.
const REPORT: Duration = Duration::from_secs(100);
/// How often the hub looks at its rollouts.
const LOOK: Duration = Duration::from_secs(20);
/// Sooner after a report.
const SOON: Duration = Duration::from_millis(200);

/// What happens. Numbers are a device, and the life of it that is meant.
#[derive(Debug)]
pub(super) enum Event {
    Start(usize),
    Up(usize, Vec<u8>),
    Down(usize, Vec<u8>),
    Wake(usize, u64),
    Traffic(usize, u64),
    Report(usize, u64),
    Interval(usize, u64),
    Connect(usize, u64),
    KeepAlive(usize, u64),
    Refresh(usize, u64),
    Refreshed(usize, u64, Vec<u8>),
    Piece(usize, u64, Of, u64),
    Opened(usize, u64, Of, u64),
    Heal(usize, u64),
    HubLook,
    HubSoon,
    HubStart,
    Operate,
    Fault,
    Mend(super::faults::Mend),
    Backup,
    Renew,
}

/// Everything.
pub(super) struct World {
    /// Since the beginning, and the same as true wall time.
    pub(super) at: Duration,
    pub(super) now: Micros,
    schedule: Schedule<Event>,
    pub(super) chance: StdRng,
    pub(super) devices: Vec<Device>,
    pub(super) watches: Vec<Watch>,
    pub(super) network: Network,
    pub(super) attackers: Vec<Attacker>,
    pub(super) hub: Hub,
    pub(super) backup: Option<Record>,
    pub(super) ledger: Ledger,
    pub(super) operator: Operator,
    pub(super) figures: Figures,
    pub(super) breakage: Option<Breakage>,
    /// Faults and operators' whims go on until then.
    pub(super) calm: Micros,
    pub(super) soon: bool,
    /// The hub is about to begin again.
    starting: bool,
    trace: Trace,
    /// Packages that are to be opened, by order.
    pub(super) opening: BTreeMap<(usize, u64, Of, u64), ReleaseRef>,
}

impl World {
    pub(super) fn new(seed: u64, settings: &Settings) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let count = settings.devices.unwrap_or_else(|| chance.random_range(2..=12)).max(1);
        let key = SigningKey::generate([7; 32]);
        let repository = Repository::new(&key, Micros(START.0 + 7 * Micros::DAY));
        let root = repository.root();
        let devices = (0..count).map(|number| {
            let small = number > 0 && chance.random_bool(0.3);
            Device::new(number, small, root.clone(), seed ^ (number as u64) << 32)
        });
        let devices: Vec<Device> = devices.collect();
        let calm = Micros(START.0 + settings.minutes.unwrap_or(60) as i64 * 60 * Micros::SECOND);
        let network = Network::new(StdRng::seed_from_u64(chance.random()));
        let mut world = Self {
            at: Duration::ZERO,
            now: START,
            schedule: Schedule::default(),
            devices,
            watches: (0..count).map(|_| Watch::default()).collect(),
            network,
            attackers: (0..count).map(|_| Attacker::default()).collect(),
            hub: Hub::new(key, repository, settings.breakage),
            backup: None,
            ledger: Ledger::default(),
            operator: Operator::default(),
            figures: Figures { runs: 1, devices: count as u64, ..Figures::default() },
            breakage: settings.breakage,
            calm,
            soon: false,
            starting: false,
            trace: Trace::new(settings.trace),
            opening: BTreeMap::new(),
            chance,
        };
        for number in 0..count {
            let after = world.span(0, 60_000);
            world.after(after, Event::Start(number));
        }
        for event in [Event::HubLook, Event::Operate, Event::Fault, Event::Backup, Event::Renew] {
            let after = world.span(1_000, 90_000);
            world.after(after, event);
        }
        world
    }

    /// A span of milliseconds, by chance.
    pub(super) fn span(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.chance.random_range(from..=to))
    }

    pub(super) fn after(&mut self, wait: Duration, event: Event) {
        self.schedule.plan(self.at + wait, event);
    }

    pub(super) fn plan(&mut self, at: Duration, event: Event) {
        self.schedule.plan(at, event);
    }

    pub(super) fn breaks(&self, breakage: Breakage) -> bool {
        self.breakage == Some(breakage)
    }

    /// Whether faults are still to come.
    pub(super) fn is_rough(&self) -> bool {
        self.now < self.calm
    }

    /// What it came to.
    pub(super) fn end(mut self) -> Figures {
        self.figures.trace = self.trace.hash();
        self.figures.busiest = self.schedule.busiest();
        self.devices.iter().for_each(|device| self.figures.faults.count_harm(device.disk.harm()));
        self.figures.seconds = self.at.as_secs_f64();
        self.figures.device_seconds = self.figures.seconds * self.devices.len() as f64;
        self.figures
    }

    /// Carries out one event.
    pub(super) fn step(&mut self) -> Result<(), String> {
        let (at, event) = self.schedule.pop().map_err(|stuck| stuck.to_string())?;
        (self.at, self.now) = (at, Micros(START.0 + at.as_micros() as i64));
        self.trace.note(at, format_args!("{}", brief(&event)));
        self.figures.events += 1;
        self.happens(event)
    }

    /// The device of an event, if the life that is meant still is.
    fn alive(&mut self, number: usize, life: u64) -> bool {
        let device = &self.devices[number];
        device.set_time(self.now);
        device.life.is_some() && device.lives == life
    }

    fn happens(&mut self, event: Event) -> Result<(), String> {
        let device = match event {
            Event::Start(number) => {
                self.start(number)?;
                Some(number)
            }
            Event::Up(number, bytes) => {
                if self.hub.up {
                    let id = self.devices[number].id.clone();
                    let out = self.hub.hears(&id, &bytes, self.now, &mut self.ledger);
                    self.send(out);
                    if !std::mem::replace(&mut self.soon, true) {
                        self.after(SOON, Event::HubSoon);
                    }
                }
                None
            }
            Event::Down(number, bytes) => {
                let life = self.devices[number].lives;
                let connected = self.devices[number].life.as_ref().is_some_and(|life| life.connected);
                if connected && self.alive(number, life) {
                    if let Ok(signed) = SignedAssignment::decode(&bytes) {
                        self.watches[number].hears(&signed, self.now);
                    }
                    let believed = self.life(number).trust.believed();
                    self.tell(number, Input::Assigned { signed: bytes, believed })?;
                }
                Some(number)
            }
            Event::Wake(number, life) if self.alive(number, life) => {
                self.life(number).wake = None;
                self.tell(number, Input::Woken)?;
                Some(number)
            }
            Event::Traffic(number, life) if self.alive(number, life) => {
                self.traffic(number)?;
                Some(number)
            }
            Event::Report(number, life) if self.alive(number, life) => {
                self.life(number).reporting = false;
                self.report(number);
                Some(number)
            }
            Event::Interval(number, life) if self.alive(number, life) => {
                self.report(number);
                self.after(REPORT, Event::Interval(number, life));
                None
            }
            Event::Connect(number, life) if self.alive(number, life) => {
                self.connect(number)?;
                Some(number)
            }
            Event::KeepAlive(number, life) if self.alive(number, life) => {
                self.keep_alive(number)?;
                Some(number)
            }
            Event::Refresh(number, life) if self.alive(number, life) => {
                self.show_repository(number);
                let well = at_once(self.life(number).trust.refresh()).is_ok();
                let wait = self.life(number).pace.next_wait(well);
                self.after(wait, Event::Refresh(number, life));
                Some(number)
            }
            Event::Refreshed(number, life, signed) if self.alive(number, life) => {
                self.show_repository(number);
                // What it says of it is the fetch's matter.
                let _ = at_once(self.life(number).trust.refresh());
                let believed = self.life(number).trust.believed();
                self.tell(number, Input::Refreshed { signed, believed })?;
                Some(number)
            }
            Event::Piece(number, life, of, download) if self.alive(number, life) => {
                self.piece(number, of, download)?;
                Some(number)
            }
            Event::Opened(number, life, of, order) if self.alive(number, life) => {
                self.opened(number, of, order)?;
                Some(number)
            }
            Event::Heal(number, life) if self.alive(number, life) => {
                let life = self.life(number);
                life.healing = life.store.is_suspect() && life.store.reopen().is_err();
                if life.healing {
                    let lives = self.devices[number].lives;
                    self.after(Duration::from_secs(1), Event::Heal(number, lives));
                }
                Some(number)
            }
            Event::HubLook => {
                self.look();
                self.after(LOOK, Event::HubLook);
                None
            }
            Event::HubSoon => {
                self.soon = false;
                self.look();
                None
            }
            Event::HubStart => {
                (self.hub.up, self.starting) = (true, false);
                None
            }
            Event::Operate => {
                self.operate();
                None
            }
            Event::Fault => {
                self.fault();
                None
            }
            Event::Mend(mend) => {
                self.mend(mend);
                None
            }
            Event::Backup => {
                if self.hub.up && self.is_rough() {
                    self.backup = Some(self.hub.record.clone());
                }
                let wait = self.span(600_000, 2_400_000);
                self.after(wait, Event::Backup);
                None
            }
            Event::Renew => {
                // Metadata is signed anew long before it expires, unless the hub is away.
                if self.hub.up {
                    self.hub.record.repository.sign(self.expires());
                }
                self.after(Duration::from_secs(3_600), Event::Renew);
                None
            }
            _ => None,
        };
        if let Some(broken) = self.ledger.broken.pop() {
            return Err(broken);
        }
        if !self.hub.up && !std::mem::replace(&mut self.starting, true) {
            let wait = self.span(1_000, 240_000);
            self.after(wait, Event::HubStart);
        }
        match device {
            Some(number) => self.afterwards(number),
            None => Ok(()),
        }
    }

    /// When metadata that is signed now expires.
    pub(super) fn expires(&self) -> Micros {
        Micros(self.now.0 + 3 * Micros::DAY)
    }

    fn look(&mut self) {
        if self.hub.up {
            let out = self.hub.look(self.now, &mut self.ledger);
            self.send(out);
        }
    }

    /// Sends what is signed.
    pub(super) fn send(&mut self, out: Vec<Outgoing>) {
        for (device, signed) in out {
            self.figures.assignments += 1;
            let Some(number) = self.devices.iter().position(|it| it.id == device) else { continue };
            self.send_down(number, signed.encode());
        }
    }

    /// Whether nothing is under way anywhere: every device stands where its newest word wants it.
    pub(super) fn is_quiet(&self) -> bool {
        self.devices.iter().all(|device| {
            let Some(life) = &device.life else { return false };
            let settled = life.lines.updaters().all(|(_, updater)| updater.record().candidate.release().is_none());
            settled && life.lines.generation() == self.hub.record.generation(&device.id)
        })
    }

    /// Whether this package is committed everywhere where it can be, in this role.
    pub(super) fn committed(&self, role: &Role, sha256: &Sha256) -> bool {
        let of = (super::packages::line(), role.clone());
        self.devices.iter().all(|device| {
            let record = device.life.as_ref().and_then(|life| life.lines.updater(&of)).map(|it| it.record());
            record.is_some_and(|it| it.committed.as_ref().is_some_and(|release| release.sha256 == *sha256))
        })
    }
}

fn brief(event: &Event) -> String {
    match event {
        Event::Up(device, bytes) => format!("Up({device}, {} bytes)", bytes.len()),
        Event::Down(device, bytes) => format!("Down({device}, {})", said(bytes)),
        Event::Refreshed(device, life, _) => format!("Refreshed({device}, {life})"),
        other => format!("{other:?}"),
    }
}

/// An assignment in short.
fn said(bytes: &[u8]) -> String {
    let signed = SignedAssignment::decode(bytes).ok();
    let Some(assignment) = signed.and_then(|signed| Assignment::decode(&signed.payload).ok()) else {
        return format!("{} bytes", bytes.len());
    };
    let mut words = format!("generation {}", assignment.desired().generation);
    for wish in &assignment.desired().lines {
        let lower = if wish.allow_lower { " or lower" } else { "" };
        words.push_str(&format!(", {} {}{lower}", wish.role, wish.release.version));
    }
    words
}
