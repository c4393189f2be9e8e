//! What an agent's shell does with what the cores say: start, serve, store, fetch; and how a device dies.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use edge_agent::packages::{ActivePackage, OpenError};
use edge_agent::update::fetch;
use edge_agent::update::slot::{Order, serve_failure};
use edge_agent::update::stored;
use edge_agent_core::lines::{Action, Input, Of};
use edge_agent_core::updater::{self, FetchFailure};
use edge_agent_core::words::in_words;
use rand::Rng;
use tributary_wire::{ReleaseRef, TrialReport};

use super::Breakage;
use super::device::at_once;
use super::download::{Came, Download};
use super::packages::Kind;
use super::world::{Event, World};

/// Predictions that a device makes at once.
const PREDICTIONS: u64 = 80;
/// How often.
const TRAFFIC: Duration = Duration::from_secs(20);

impl World {
    pub(super) fn life(&mut self, number: usize) -> &mut super::device::Life {
        self.devices[number].life.as_mut().expect("asked before")
    }

    /// What follows from every step of a device.
    pub(super) fn afterwards(&mut self, number: usize) -> Result<(), String> {
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

    pub(super) fn start(&mut self, number: usize) -> Result<(), String> {
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
    pub(super) fn traffic(&mut self, number: usize) -> Result<(), String> {
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
    pub(super) fn perform(&mut self, number: usize, actions: Vec<Action>) -> Result<(), String> {
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
                Action::Vouch { of, release } => {
                    let chain = match breakage {
                        Some(Breakage::SkipsTheChain) => Ok(()),
                        _ => at_once(fetch::vouch(&life.trust, &of.0, &release)),
                    };
                    Some(Input::Vouched { of, sha256: release.sha256, believed: life.trust.believed(), chain })
                }
                Action::Serve { of, package } => {
                    if let Some(release) = &package {
                        self.watches[number].ordered(&self.devices[number], &of, release.sha256)?;
                    }
                    self.serve(number, of, package)?
                }
                Action::Keep { signed, generation } => {
                    Some(match stored::put_assignment(&life.store, &signed, generation) {
                        Ok(()) => Input::Kept,
                        Err(_) if breakage == Some(Breakage::KeepsWithoutStoring) => Input::Kept,
                        Err(error) => Input::NotKept { reason: in_words(&error) },
                    })
                }
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

    pub(super) fn serve(
        &mut self,
        number: usize,
        of: Of,
        package: Option<ReleaseRef>,
    ) -> Result<Option<Input>, String> {
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

    pub(super) fn swap(&mut self, number: usize, of: Of, package: Option<Arc<ActivePackage>>) -> Result<Input, String> {
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

    pub(super) fn opened(&mut self, number: usize, of: Of, order: u64) -> Result<(), String> {
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
    pub(super) fn piece(&mut self, number: usize, of: Of, which: u64) -> Result<(), String> {
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
                let listed =
                    fetch::check_listed(&life.trust, (&device.capabilities, 0), &of.0, &release, download.snapshot);
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
}
