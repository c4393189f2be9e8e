//! All updaters of one device, and the assignment that speaks to them: which one counts, what is stored before it
//! counts, what it means for every line and role, and what goes into a report about it.
//!
//! An assignment is verified, made durable, and only then told to the updaters. One that speaks of newer metadata than
//! this device has waits until that was asked for, once.

mod messages;
mod audit;
mod assignment;
mod shown;
#[cfg(test)]
mod tests;

use tributary_release::KeyId;
use tributary_wire::{Assignment, DeviceId, Generation, LineName, Role, Sha256};

pub use assignment::{StoredError, open_remembered};
pub use audit::AuditSeen;
pub use messages::{Action, Believed, Input, Of, Remembered};
pub use shown::{Share, report};

use crate::Now;
use crate::updater::{self, Record, Updater, UpdaterSettings};
use audit::AuditWatch;

/// What never changes while the agent runs.
#[derive(Debug, Clone)]
pub struct LinesSettings {
    /// This device.
    pub device: DeviceId,
    /// The lines that are served here; an assignment of another is refused.
    pub lines: Vec<LineName>,
    /// How patient updaters are.
    pub updater: UpdaterSettings,
    /// Chance.
    pub seed: u64,
}

/// The state machine of a device's lines.
#[derive(Debug, Clone)]
pub struct Lines {
    settings: LinesSettings,
    updaters: Vec<(Of, Updater)>,
    /// The newest accepted assignment.
    generation: Generation,
    /// What it said, to recognise it when it comes again.
    accepted: Option<Assignment>,
    /// Who signed it, when it was last heard.
    signer: Option<KeyId>,
    /// Verified, on its way to the disk.
    keeping: Option<(Assignment, KeyId)>,
    /// Arrived meanwhile; the newest stands for all.
    waiting: Option<(Vec<u8>, Believed)>,
    audit: AuditWatch,
    problem: Option<String>,
    online: bool,
    started: u64,
    now: Now,
    out: Vec<Action>,
}

impl Lines {
    /// Begins from what is stored. Its orders to serve are to be carried out before anything is served.
    pub fn recover(settings: LinesSettings, records: Vec<(Of, Record)>, now: Now) -> (Self, Vec<Action>) {
        let mut lines = Self {
            settings,
            updaters: Vec::new(),
            generation: Generation(0),
            accepted: None,
            signer: None,
            keeping: None,
            waiting: None,
            audit: AuditWatch::default(),
            problem: None,
            online: false,
            started: 0,
            now,
            out: Vec::new(),
        };
        let served = lines.settings.lines.clone();
        for (of, record) in records.into_iter().filter(|((line, _), _)| served.contains(line)) {
            lines.begin(of, record);
        }
        for line in served {
            let of = (line, Role::primary());
            if lines.index(&of).is_none() {
                lines.begin(of, Record::default());
            }
        }
        let actions = std::mem::take(&mut lines.out);
        (lines, actions)
    }

    /// Takes in what was stored beside the records, once the first orders are carried out.
    pub fn recall(&mut self, now: Now, believed: &Believed, remembered: &Remembered) -> Vec<Action> {
        self.now = now;
        self.audit.recall(remembered.audit);
        self.recall_assignment(believed, remembered);
        self.out.push(Action::Collect);
        std::mem::take(&mut self.out)
    }

    /// Takes in what happened and returns what to do now.
    pub fn handle(&mut self, now: Now, input: Input) -> Vec<Action> {
        self.now = now;
        match input {
            Input::Assigned { signed, believed } => self.assigned(signed, &believed, true),
            Input::Refreshed { signed, believed } => self.assigned(signed, &believed, false),
            Input::Kept => self.kept(),
            Input::NotKept { reason } => self.not_kept(&reason),
            Input::Began(of, record) => self.began(of, *record),
            Input::Online(online) => {
                self.online = online;
                self.tell_each(|_| Some(updater::Input::Online(online)));
            }
            Input::Vouched { of, sha256, believed, chain } => {
                let word = chain.and_then(|()| self.still_orders(&believed));
                if let Some(index) = self.index(&of) {
                    self.tell(index, updater::Input::Vouched { sha256, word });
                }
            }
            Input::Line(of, input) => {
                // A role that was retired meanwhile is nobody's any more.
                if let Some(index) = self.index(&of) {
                    self.tell(index, input);
                }
            }
            Input::Woken => {
                self.tell_each(|updater| {
                    updater.next_wake().is_some_and(|wake| wake <= now.monotonic).then_some(updater::Input::Woken)
                });
            }
            Input::Stopping => self.tell_each(|_| Some(updater::Input::Stopping)),
        }
        std::mem::take(&mut self.out)
    }

    /// When to say [`Input::Woken`] if nothing else happens.
    pub fn next_wake(&self) -> Option<std::time::Duration> {
        self.updaters.iter().filter_map(|(_, updater)| updater.next_wake()).min()
    }

    /// Every updater.
    pub fn updaters(&self) -> impl Iterator<Item = (&Of, &Updater)> {
        self.updaters.iter().map(|(of, updater)| (of, updater))
    }

    /// The updater of a line and role.
    pub fn updater(&self, of: &Of) -> Option<&Updater> {
        self.index(of).map(|index| &self.updaters[index].1)
    }

    /// Packages that must stay on disk.
    pub fn references(&self) -> Vec<Sha256> {
        self.updaters.iter().flat_map(|(_, updater)| updater.references()).collect()
    }

    fn index(&self, of: &Of) -> Option<usize> {
        self.updaters.iter().position(|(known, _)| known == of)
    }

    fn begin(&mut self, of: Of, record: Record) {
        let seed = self.settings.seed.wrapping_add(self.started);
        self.started += 1;
        let (line, role) = of.clone();
        let (updater, actions) = Updater::recover(line, role, self.settings.updater, record, self.now, seed);
        self.updaters.push((of, updater));
        let index = self.updaters.len() - 1;
        self.pass_on(index, actions);
        if self.online {
            self.tell(index, updater::Input::Online(true));
        }
    }

    fn tell_each(&mut self, input: impl Fn(&Updater) -> Option<updater::Input>) {
        for index in 0..self.updaters.len() {
            if let Some(input) = input(&self.updaters[index].1) {
                self.tell(index, input);
            }
        }
    }

    fn tell(&mut self, index: usize, input: updater::Input) {
        let actions = self.updaters[index].1.handle(self.now, input);
        self.pass_on(index, actions);
    }

    fn pass_on(&mut self, index: usize, actions: Vec<updater::Action>) {
        let (of, updater) = &self.updaters[index];
        let record = updater.record();
        for action in actions {
            let of = of.clone();
            self.out.push(match action {
                updater::Action::Persist { ticket, record } => Action::Persist { of, ticket, record },
                updater::Action::Fetch(release) => {
                    let was_here = [&record.committed, &record.previous, &record.lost];
                    let known = was_here.into_iter().flatten().any(|it| it.sha256 == release.sha256);
                    let snapshot = self.accepted.as_ref().map_or(0, Assignment::snapshot);
                    Action::Fetch { of, release, snapshot, known }
                }
                updater::Action::Vouch(release) => Action::Vouch { of, release },
                updater::Action::Serve(package) => Action::Serve { of, package },
                updater::Action::Report => Action::Report,
                updater::Action::Collect => Action::Collect,
            });
        }
    }
}
