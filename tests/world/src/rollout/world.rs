//! The world: a queue of events over one virtual time, and the shells that carry out what the cores say.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use edge_agent::packages::{ActivePackage, OpenError};
use edge_agent::update::fetch;
use edge_agent::update::slot::{Order, serve_failure};
use edge_agent::update::stored;
use edge_agent_core::lines::{Action, Input, Of};
use edge_agent_core::updater::{self, FetchFailure};
use edge_agent_core::words::in_words;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tributary_release::SigningKey;
use tributary_wire::{Micros, ReleaseRef, Role, Sha256, SignedAssignment, TrialReport};

use super::checks::{Ledger, Watch};
use super::device::{Device, at_once};
use super::download::{Came, Download};
use super::figures::Figures;
use super::hub::{Hub, Outgoing, Record};
use super::links::Attacker;
use super::operator::Operator;
use super::packages::{Kind, Repository};
use super::{Breakage, Settings};
use crate::network::Network;
use crate::schedule::Schedule;
use crate::trace::Trace;

/// When every world begins: some weeks after this source was built.
pub(super) const START: Micros = Micros(tributary_identity::BUILT.0 + 20 * Micros::DAY);
/// Predictions that a device makes at once.
const PREDICTIONS: u64 = 80;
/// How often.
const TRAFFIC: Duration = Duration::from_secs(20);
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
    breakage: Option<Breakage>,
    /// Faults and operators' whims go on until then.
    pub(super) calm: Micros,
    pub(super) soon: bool,
    /// The hub is about to begin again.
    starting: bool,
    trace: Trace,
    /// Packages that are to be opened, by order.
    opening: BTreeMap<(usize, u64, Of, u64), ReleaseRef>,
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
        self.figures.device_seconds = self.at.as_secs_f64() * self.devices.len() as f64;
        self.figures
    }

    /// Carries out one event; `None`: nothing is left.
    pub(super) fn step(&mut self) -> Option<Result<(), String>> {
        let (at, event) = self.schedule.pop()?;
        (self.at, self.now) = (at, Micros(START.0 + at.as_micros() as i64));
        self.trace.note(at, format_args!("{}", brief(&event)));
        self.figures.events += 1;
        Some(self.happens(event))
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

    pub(super) fn life(&mut self, number: usize) -> &mut super::device::Life {
        self.devices[number].life.as_mut().expect("asked before")
    }

    /// What follows from every step of a device.
    fn afterwards(&mut self, number: usize) -> Result<(), String> {
        if self.devices[number].disk.has_failed() {
            self.figures.add("power cut in an operation");
            self.cut_power(number);
            return Ok(());
        }
        let lives = self.devices[number].lives;
        self.watches[number].check(&self.devices[number], &self.ledger)?;
        let Some(life) = &mut self.devices[number].life else { return Ok(()) };
        if life.store.is_suspect() && !std::mem::replace(&mut life.healing, true) {
            self.after(Duration::from_secs(1), Event::Heal(number, lives));
        }
        let now = self.devices[number].monotonic();
        let life = self.life(number);
        let wake = life.lines.next_wake().map(|wake| wake.max(now));
        if let Some(wake) = wake.filter(|wake| life.wake.is_none_or(|planned| *wake < planned)) {
            life.wake = Some(wake);
            // Not the same instant again: a wake that changes nothing must not stop the world.
            self.after(wake.saturating_sub(now) + Duration::from_micros(1), Event::Wake(number, lives));
        }
        Ok(())
    }

    /// The power goes: of what was not synced, chance decides what is left.
    pub(super) fn cut_power(&mut self, number: usize) {
        let coin = self.chance.random();
        self.devices[number].life = None;
        self.watches[number].ends();
        self.devices[number].disk.crash(Some(coin));
        let wait = self.span(500, 120_000);
        self.after(wait, Event::Start(number));
    }

    /// The process dies; the disk keeps what it was given.
    pub(super) fn kill(&mut self, number: usize) {
        self.devices[number].life = None;
        self.watches[number].ends();
        let wait = self.span(100, 20_000);
        self.after(wait, Event::Start(number));
    }

    fn start(&mut self, number: usize) -> Result<(), String> {
        if self.devices[number].life.is_some() {
            return Ok(());
        }
        self.devices[number].set_time(self.now);
        self.figures.starts += 1;
        let orders = match self.devices[number].start() {
            Ok(orders) => orders,
            Err(_) => {
                if self.devices[number].disk.has_failed() {
                    self.cut_power(number);
                } else {
                    self.after(Duration::from_secs(5), Event::Start(number));
                }
                return Ok(());
            }
        };
        self.watches[number].starts(&self.devices[number])?;
        self.perform(number, orders)?;
        // Orders given so far are carried out before anything is served.
        let lives = self.devices[number].lives;
        while let Some((_, _, of, order)) =
            self.opening.keys().find(|(device, life, ..)| (*device, *life) == (number, lives)).cloned()
        {
            self.opened(number, of, order)?;
        }
        let recalled = self.devices[number].recall();
        match recalled {
            Ok(actions) => self.perform(number, actions)?,
            Err(_) => {
                self.kill(number);
                return Ok(());
            }
        }
        if !self.devices[number].disk.has_failed() {
            self.watches[number].up(&self.devices[number])?;
        }
        for (from, to, event) in [
            (10, 2_000, Event::Connect(number, lives)),
            (10, 5_000, Event::Refresh(number, lives)),
            (100, 10_000, Event::Traffic(number, lives)),
            (1_000, 30_000, Event::Interval(number, lives)),
        ] {
            let wait = self.span(from, to);
            self.after(wait, event);
        }
        Ok(())
    }

    /// Predictions, by the package that serves; the updaters are shown what it did.
    fn traffic(&mut self, number: usize) -> Result<(), String> {
        let lives = self.devices[number].lives;
        self.after(TRAFFIC, Event::Traffic(number, lives));
        let row = [self.chance.random_range(0.0..10.0f32)];
        let mut shown = Vec::new();
        let life = self.devices[number].life.as_mut().expect("asked before");
        for (of, place) in &mut life.places {
            let Some(package) = &place.serving else { continue };
            let sha256 = package.reference.sha256;
            let kind = self.ledger.kind(&sha256);
            if kind == Some(Kind::Crashing) {
                self.figures.add("package that kills the process");
                self.kill(number);
                return Ok(());
            }
            let mut out = Vec::new();
            package.engine.predict(&row, 1, &mut out).map_err(|error| format!("promise 4: no prediction: {error}"))?;
            let before = place.did.predictions as f64;
            place.did.predictions += PREDICTIONS;
            place.did.latency_p99_us = 100;
            place.did.output_mean = (place.did.output_mean * before + f64::from(out[0]) * PREDICTIONS as f64)
                / place.did.predictions as f64;
            if kind == Some(Kind::Harmful) && place.did.predictions > 100 {
                place.did.errors += PREDICTIONS / 2;
            }
            self.figures.predictions += PREDICTIONS;
            if place.slot.is_settled() {
                shown.push((of.clone(), sha256, place.did));
            }
        }
        for (of, sha256, evidence) in shown {
            self.tell(number, Input::Line(of, updater::Input::Evidence { sha256, evidence }))?;
        }
        Ok(())
    }

    pub(super) fn tell(&mut self, number: usize, input: Input) -> Result<(), String> {
        if let Input::Line(of, updater::Input::Fetched { sha256, .. }) = &input {
            self.watches[number].stages(of, *sha256, self.now);
        }
        if let Input::Line(_, updater::Input::ServeFailed { sha256, .. }) = &input {
            self.watches[number].could_not_serve(*sha256);
        }
        let now = self.devices[number].now();
        let actions = self.life(number).lines.handle(now, input);
        self.perform(number, actions)
    }

    /// Carries out actions, as the agent's own shell does.
    fn perform(&mut self, number: usize, actions: Vec<Action>) -> Result<(), String> {
        let mut actions = VecDeque::from(actions);
        let (lives, breakage) = (self.devices[number].lives, self.breakage);
        while let Some(action) = actions.pop_front() {
            let life = self.devices[number].life.as_mut().expect("asked before");
            let input = match action {
                Action::Persist { of, ticket, record } => {
                    let early = breakage == Some(Breakage::CommitBeforeDurable);
                    let kept = if early { Ok(()) } else { stored::put_record(&life.store, &of, (*record).clone()) };
                    self.watches[number].stores(&of, &record, kept.is_ok());
                    let input = match kept {
                        Ok(()) => updater::Input::Persisted(ticket),
                        Err(_) => updater::Input::PersistFailed,
                    };
                    Some(Input::Line(of, input))
                }
                Action::Fetch { of, release, snapshot, known } => {
                    let place = life.places.entry(of.clone()).or_default();
                    place.downloads += 1;
                    let download = Download::new(place.downloads, release, snapshot, known);
                    let event = Event::Piece(number, lives, of, download.number);
                    place.download = Some(download);
                    let wait = self.span(5, 500);
                    self.after(wait, event);
                    None
                }
                Action::Serve { of, package } => {
                    if let Some(release) = &package {
                        self.watches[number].ordered(&self.devices[number], &of, release.sha256)?;
                    }
                    self.serve(number, of, package)?
                }
                Action::Keep(signed) => Some(match stored::put_assignment(&life.store, &signed) {
                    Ok(()) => Input::Kept,
                    Err(_) if breakage == Some(Breakage::KeepsWithoutStoring) => Input::Kept,
                    Err(error) => Input::NotKept { reason: in_words(&error) },
                }),
                Action::Refresh(signed) => {
                    let wait = self.span(5, 800);
                    self.after(wait, Event::Refreshed(number, lives, signed));
                    None
                }
                Action::Raise(signed) => {
                    life.trust.raise_time(signed);
                    None
                }
                Action::KeepAudit(seen) => {
                    // Failing costs that a restart knows less.
                    let _ = stored::put_audit(&life.store, seen);
                    None
                }
                Action::Begin(of) => {
                    stored::record(&life.store, &of).ok().map(|record| Input::Began(of, Box::new(record)))
                }
                Action::Retire(of) => {
                    life.places.remove(&of);
                    // A record that stays is read again with the role, and replaced.
                    if stored::delete_record(&life.store, &of).is_ok() {
                        self.watches[number].retires(&of);
                    }
                    None
                }
                Action::Report => {
                    if life.connected && !std::mem::replace(&mut life.reporting, true) {
                        self.after(Duration::from_millis(20), Event::Report(number, lives));
                    }
                    None
                }
                Action::Collect => {
                    for (of, updater) in life.lines.updaters() {
                        if let Some(place) = life.places.get_mut(of) {
                            place.slot.release(updater.record());
                        }
                    }
                    // What stays costs only room.
                    let _ = life.files.collect(&life.lines.references());
                    None
                }
            };
            if let Some(input) = input {
                let now = self.devices[number].now();
                actions.extend(self.life(number).lines.handle(now, input));
            }
        }
        Ok(())
    }

    fn serve(&mut self, number: usize, of: Of, package: Option<ReleaseRef>) -> Result<Option<Input>, String> {
        let lives = self.devices[number].lives;
        match self.life(number).places.entry(of.clone()).or_default().slot.order(package) {
            Order::Swap(package) => self.swap(number, of, package).map(Some),
            Order::Open(order, release) => {
                self.opening.insert((number, lives, of.clone(), order), release);
                let wait = self.span(5, 3_000);
                self.after(wait, Event::Opened(number, lives, of, order));
                Ok(None)
            }
        }
    }

    fn swap(&mut self, number: usize, of: Of, package: Option<Arc<ActivePackage>>) -> Result<Input, String> {
        let sha256 = package.as_ref().map(|package| package.reference.sha256);
        if let Some(sha256) = sha256 {
            self.watches[number].serves(&self.devices[number], &of, sha256, &self.ledger)?;
        }
        let place = self.life(number).places.entry(of.clone()).or_default();
        place.slot.placed();
        place.serving = package;
        place.did = TrialReport::default();
        self.figures.swaps += 1;
        Ok(Input::Line(of, updater::Input::Serving(sha256)))
    }

    fn opened(&mut self, number: usize, of: Of, order: u64) -> Result<(), String> {
        let lives = self.devices[number].lives;
        let Some(release) = self.opening.remove(&(number, lives, of.clone(), order)) else { return Ok(()) };
        let life = self.life(number);
        let opened = ActivePackage::open(&life.files, &of.0, &release).map(Arc::new);
        let Some(place) = life.places.get_mut(&of) else { return Ok(()) };
        if !place.slot.opened(order, opened.as_ref().ok()) {
            return Ok(());
        }
        let input = match opened {
            Ok(package) => self.swap(number, of, Some(package))?,
            Err(error) => {
                if let OpenError::File(file) = &error
                    && file.is_damage()
                {
                    // One that stays is found damaged again.
                    let _ = life.files.remove(&release.sha256);
                }
                let (failure, reason) = (serve_failure(&error), in_words(&error));
                Input::Line(of, updater::Input::ServeFailed { sha256: release.sha256, failure, reason })
            }
        };
        self.tell(number, input)
    }

    /// The next piece of a download, or what came of it.
    fn piece(&mut self, number: usize, of: Of, which: u64) -> Result<(), String> {
        let lives = self.devices[number].lives;
        self.show_repository(number);
        let (reachable, spoils) = (self.reaches(number), self.attackers[number].spoils);
        let device = &mut self.devices[number];
        let Some(life) = &mut device.life else { return Ok(()) };
        let Some(place) = life.places.get_mut(&of) else { return Ok(()) };
        let Some(mut download) = place.download.take_if(|download| download.number == which) else { return Ok(()) };
        let release = download.release.clone();
        let fetched = (|| {
            if !download.known && self.breakage != Some(Breakage::SkipsTheChain) {
                let listed = fetch::check_listed(&life.trust, &device.capabilities, &of.0, &release, download.snapshot);
                at_once(listed)?;
            }
            if !life.files.has(&release.sha256) {
                let sent = if reachable { self.hub.record.repository.bytes(&release.sha256) } else { None };
                let Some(mut sent) = sent else {
                    return Err(fetch::FetchError::Disk(std::io::ErrorKind::NotConnected.into()));
                };
                if spoils {
                    let middle = sent.len() / 2;
                    sent[middle] ^= 1;
                }
                if let Came::More = download.piece(&life.files, &sent)? {
                    return Ok(None);
                }
            }
            fetch::open(&life.files, &of.0, &release).map(Some)
        })();
        let input = match fetched {
            Ok(None) => {
                // Whoever orders another one meanwhile has put it here.
                place.download.get_or_insert(download);
                let wait = self.span(5, 2_000);
                self.after(wait, Event::Piece(number, lives, of, which));
                return Ok(());
            }
            Ok(Some(package)) => {
                let probation = package.package.manifest.probation;
                let record = life.lines.updater(&of).map(|updater| updater.record().clone()).unwrap_or_default();
                place.slot.keep(Arc::new(package));
                place.slot.release(&record);
                updater::Input::Fetched { sha256: release.sha256, probation }
            }
            Err(error) => {
                let failure = error.failure();
                if let FetchFailure::Unfit(_) = &failure {
                    self.figures.unfit += 1;
                }
                updater::Input::FetchFailed { sha256: release.sha256, failure, reason: in_words(&error) }
            }
        };
        self.tell(number, Input::Line(of, input))
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
        Event::Down(device, bytes) => format!("Down({device}, {} bytes)", bytes.len()),
        Event::Refreshed(device, life, _) => format!("Refreshed({device}, {life})"),
        other => format!("{other:?}"),
    }
}
