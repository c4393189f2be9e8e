//! What must hold after every step, and the history that it takes to know: promises 3 to 6.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

use cloud_hub_core::rollout::RolloutState;
use edge_agent_core::lines::Of;
use edge_agent_core::updater::{Candidate, Record as Updated};
use tributary_process::disk::Disk;
use tributary_release::digest;
use tributary_wire::{Assignment, DeviceId, Micros, ReleaseRef, Role, Sha256, SignedAssignment};

use super::device::Device;
use super::hub::Outgoing;
use super::packages::Kind;
use super::record::Record;

/// What the hub did, as somebody sees it who reads all of its transactions.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    published: BTreeMap<Sha256, Kind>,
    /// Every assignment that was ever signed for a device, by generation.
    words: BTreeMap<DeviceId, BTreeMap<u64, Vec<Assignment>>>,
    /// Who ever said that it cannot run a release. With a newer assignment it says so only when it has looked again.
    unfit: BTreeSet<(DeviceId, Sha256)>,
    pub(super) broken: Vec<String>,
}

impl Ledger {
    pub(super) fn published(&mut self, sha256: Sha256, kind: Kind) {
        self.published.insert(sha256, kind);
    }

    pub(super) fn kind(&self, sha256: &Sha256) -> Option<Kind> {
        self.published.get(sha256).copied()
    }

    /// A transaction was stored, and these are about to be sent.
    pub(super) fn committed(&mut self, record: &Record, out: &[Outgoing]) {
        for (device, signed) in out {
            let Ok(assignment) = Assignment::decode(&signed.payload) else { continue };
            for wish in assignment.desired().lines.iter().filter(|wish| !wish.allow_lower) {
                let of_it = record
                    .rollouts
                    .values()
                    .filter(|course| (&course.rollout.role, &course.rollout.target) == (&wish.role, &wish.release));
                let states: Vec<&RolloutState> = of_it.map(|course| &course.rollout.state).collect();
                // What a device has for good it may be told again.
                let has = record.has_committed(device, &wish.role, &wish.release.sha256);
                if !has && !states.iter().any(|state| state.allows_install()) {
                    let (role, version) = (&wish.role, wish.release.version);
                    self.broken.push(format!(
                        "promise 6: {device} is sent version {version} as {role}, whose rollouts are {states:?}"
                    ));
                }
            }
            let generation = assignment.desired().generation.0;
            self.words.entry(device.clone()).or_default().entry(generation).or_default().push(assignment);
        }
        self.shares(record);
    }

    /// No wave has more devices than its share of the fleet.
    fn shares(&mut self, record: &Record) {
        self.unfit.extend(record.unfit());
        for (id, course) in &record.rollouts {
            let rollout = &course.rollout;
            let RolloutState::Running { wave, .. } = rollout.state else { continue };
            let percent = usize::from(rollout.policy.waves()[wave]);
            let most = (record.known() * percent).div_ceil(100).max(1);
            let fit =
                rollout.taken.keys().filter(|device| !self.unfit.contains(&((*device).clone(), rollout.target.sha256)));
            let fit = fit.count();
            if fit > most {
                self.broken.push(format!(
                    "promise 6: wave {wave} of rollout {id} has {fit} devices, {percent} % of {} are {most}",
                    record.known()
                ));
            }
        }
    }

    /// Whether the hub ever told this device to run this.
    fn was_told(&self, device: &DeviceId, role: &Role, sha256: &Sha256) -> bool {
        let words = self.words.get(device).into_iter().flat_map(|words| words.values().flatten());
        let mut lines = words.flat_map(|word| &word.desired().lines);
        lines.any(|wish| wish.role == *role && wish.release.sha256 == *sha256)
    }

    /// Whether under this generation a lower version is meant, or nothing any more.
    fn orders_back(&self, device: &DeviceId, generation: u64, role: &Role, to: Option<&Sha256>) -> bool {
        let words = self.words.get(device).and_then(|words| words.get(&generation));
        words.into_iter().flatten().any(|word| {
            let wish = word.desired().lines.iter().find(|wish| wish.role == *role);
            match (wish, to) {
                (Some(wish), Some(to)) => wish.allow_lower && wish.release.sha256 == *to,
                (None, None) => true,
                _ => false,
            }
        })
    }
}

/// What is remembered of one device.
#[derive(Debug, Default)]
pub(super) struct Watch {
    generation: u64,
    snapshot: u64,
    /// Records that may be found after a crash: the last that is certainly durable, and those after it.
    stored: BTreeMap<Of, Vec<Updated>>,
    /// As decided when it was last looked at, in this life.
    decided: BTreeMap<Of, Updated>,
    /// Files that rotted at some time.
    pub(super) rotten: BTreeSet<Sha256>,
    /// Of those that the last life began with, the ones whose bytes are right.
    intact: BTreeSet<Sha256>,
    /// Those that could not be looked at.
    unread: BTreeSet<Sha256>,
    /// Packages that could not serve.
    failed: BTreeSet<Sha256>,
    /// Since when a candidate is checked.
    staged: BTreeMap<Of, (Sha256, Micros)>,
    /// When a word about a release last came.
    heard: BTreeMap<Sha256, Micros>,
    /// Trials that were looked at when they began.
    begun: BTreeSet<(Of, u64, Sha256)>,
}

impl Watch {
    /// A new life begins on what is stored.
    pub(super) fn starts(&mut self, device: &Device) -> Result<(), String> {
        let Some(life) = &device.life else { return Ok(()) };
        self.decided.clear();
        self.staged.clear();
        let found = edge_agent::update::stored::records(&life.store).map_err(|error| format!("unreadable: {error}"))?;
        let found: BTreeMap<Of, Updated> = found.into_iter().collect();
        for (of, records) in &self.stored {
            let record = found.get(of).cloned().unwrap_or_default();
            if !records.contains(&record) {
                return Err(format!("promise 5: {of:?} was stored as {:?}, found is {record:?}", records.last()));
            }
        }
        self.stored = found.into_iter().map(|(of, record)| (of, vec![record])).collect();
        self.intact.clear();
        self.unread.clear();
        for record in self.stored.values().flatten() {
            for release in [&record.committed, &record.previous].into_iter().flatten() {
                let read = device.disk.read(&life.files.path(&release.sha256), 1 << 20);
                if read.as_ref().is_err_and(|error| error.kind() != ErrorKind::NotFound) {
                    // The fault that was meant for the device met this look.
                    self.unread.insert(release.sha256);
                    continue;
                }
                let bytes = read.unwrap_or_default();
                if digest(&bytes) == release.sha256 {
                    self.intact.insert(release.sha256);
                } else if !self.rotten.contains(&release.sha256) {
                    let version = release.version;
                    return Err(format!(
                        "promise 4: version {version} is committed on {}, and its file is gone",
                        device.id
                    ));
                }
            }
        }
        Ok(())
    }

    /// The life has ended: what was under way is over.
    pub(super) fn ends(&mut self) {
        self.decided.clear();
    }

    /// A record was stored, or may have been.
    pub(super) fn stores(&mut self, of: &Of, record: &Updated, certainly: bool) {
        let records = self.stored.entry(of.clone()).or_insert_with(|| vec![Updated::default()]);
        if certainly {
            records.clear();
        }
        records.push(record.clone());
    }

    pub(super) fn retires(&mut self, of: &Of) {
        self.stored.remove(of);
        self.decided.remove(of);
        self.staged.remove(of);
    }

    /// A message of the hub arrives, rightful or not.
    pub(super) fn hears(&mut self, signed: &SignedAssignment, now: Micros) {
        let Ok(assignment) = Assignment::decode(&signed.payload) else { return };
        self.heard.extend(assignment.desired().lines.iter().map(|wish| (wish.release.sha256, now)));
    }

    pub(super) fn stages(&mut self, of: &Of, sha256: Sha256, now: Micros) {
        self.staged.insert(of.clone(), (sha256, now));
    }

    pub(super) fn could_not_serve(&mut self, sha256: Sha256) {
        self.failed.insert(sha256);
    }

    /// A package is put in place.
    pub(super) fn serves(&mut self, device: &Device, of: &Of, sha256: Sha256, ledger: &Ledger) -> Result<(), String> {
        let id = &device.id;
        let Some(kind) = ledger.kind(&sha256) else {
            return Err(format!("promise 3: {id} serves {sha256}, which nobody published"));
        };
        if kind == Kind::Golden {
            return Err(format!("promise 3: {id} serves {sha256}, whose golden cases do not hold"));
        }
        let memory = device.capabilities.memory_bytes.unwrap_or(u64::MAX);
        if kind == Kind::Demanding && memory < super::packages::MUCH_MEMORY {
            return Err(format!("promise 3: {id} serves {sha256}, for which it has too little memory"));
        }
        if !ledger.was_told(id, &of.1, &sha256) {
            return Err(format!("promise 3: {id} serves {sha256} as {}, which the hub never told it", of.1));
        }
        Ok(())
    }

    /// An order to serve is about to be carried out: when it begins a trial, the hub was asked, and nothing has expired.
    pub(super) fn ordered(&mut self, device: &Device, of: &Of, sha256: Sha256) -> Result<(), String> {
        let Some(life) = &device.life else { return Ok(()) };
        let Some(record) = life.lines.updater(of).map(|updater| updater.record()) else { return Ok(()) };
        let Candidate::Trial { release, proven: false, crashes: 0, .. } = &record.candidate else { return Ok(()) };
        let Some(wanted) = record.wanted.as_ref().filter(|wanted| wanted.release == *release) else { return Ok(()) };
        if release.sha256 != sha256 || !self.begun.insert((of.clone(), wanted.generation.0, sha256)) {
            return Ok(());
        }
        let id = &device.id;
        let staged = self.staged.get(of).filter(|(it, _)| *it == sha256).map(|(_, at)| *at);
        let heard = self.heard.get(&sha256).copied();
        if life.connected && heard < staged {
            return Err(format!(
                "promise 6: {id} begins a trial of version {} online without the hub's word: checked {staged:?}, heard {heard:?}",
                release.version
            ));
        }
        Ok(())
    }

    /// After every step of a device that runs.
    pub(super) fn check(&mut self, device: &Device, ledger: &Ledger) -> Result<(), String> {
        let Some(life) = &device.life else { return Ok(()) };
        let id = &device.id;
        let generation = life.lines.generation().0;
        if generation < self.generation {
            return Err(format!("promise 5: {id} went back from generation {} to {generation}", self.generation));
        }
        self.generation = generation;
        let snapshot = life.trust.versions().map_or(self.snapshot, |versions| versions.snapshot);
        if snapshot != 0 && snapshot < self.snapshot {
            return Err(format!("promise 5: {id} went back from snapshot {} to {snapshot}", self.snapshot));
        }
        self.snapshot = self.snapshot.max(snapshot);
        for (of, updater) in life.lines.updaters() {
            let record = updater.record();
            if let Some(before) = self.decided.get(of)
                && before == record
            {
                continue;
            }
            let is = record.committed.as_ref();
            if let Some(was) = self.decided.get(of).and_then(|before| before.committed.as_ref())
                && is.is_none_or(|is| is.version < was.version)
            {
                let ordered = ledger.orders_back(id, generation, &of.1, is.map(|is| &is.sha256));
                if !ordered && !self.failed.contains(&was.sha256) {
                    return Err(format!(
                        "promise 5: {id} went back from {was:?} to {is:?} under generation {generation}"
                    ));
                }
            }
            self.decided.insert(of.clone(), record.clone());
        }
        for (of, place) in &life.places {
            let ordered = life.lines.updater(of).and_then(|updater| updater.ordered()).map(|release| release.sha256);
            let serving = place.serving.as_ref().map(|package| package.reference.sha256);
            if place.slot.is_settled()
                && serving != ordered
                && life.lines.updater(of).is_some_and(|updater| self.is_stored(of, updater.record()))
            {
                return Err(format!("promise 4: {id} serves {serving:?} as {}, ordered is {ordered:?}", of.1));
            }
            let committed = self.decided.get(of).and_then(|record| record.committed.as_ref());
            if place.slot.is_settled() && serving.is_none() && committed.is_some() {
                return Err(format!("promise 4: {id} serves nothing as {}, committed is {committed:?}", of.1));
            }
        }
        Ok(())
    }

    /// Whether a record is certainly on the disk. Until then orders that depend on it wait.
    fn is_stored(&self, of: &Of, record: &Updated) -> bool {
        self.stored.get(of).map_or(*record == Updated::default(), |stored| stored.iter().eq([record]))
    }

    /// A process has begun and carried out its first orders: what works on its disk serves.
    pub(super) fn up(&self, device: &Device) -> Result<(), String> {
        let Some(life) = &device.life else { return Ok(()) };
        for (of, records) in &self.stored {
            let Some(record) = records.last() else { continue };
            let here = [&record.committed, &record.previous];
            if here.iter().filter_map(|it| it.as_ref()).any(|it| self.unread.contains(&it.sha256)) {
                continue;
            }
            let expected = here.into_iter().flatten().map(|it| it.sha256).find(|sha256| self.intact.contains(sha256));
            let ordered_back = match &record.candidate {
                Candidate::Trial { release, proven: true, .. } => Some(release.sha256),
                _ => None,
            };
            let serving = life.places.get(of).and_then(|place| place.serving.as_ref()).map(|it| it.reference.sha256);
            let retired = life.lines.updater(of).is_none();
            // A start may take up the rest of a download that was under way, in the place of a rotten file.
            let mended = |release: &ReleaseRef| {
                let read = device.disk.read(&life.files.path(&release.sha256), 1 << 20);
                serving == Some(release.sha256) && read.is_ok_and(|bytes| digest(&bytes) == release.sha256)
            };
            if record.committed.as_ref().is_some_and(mended) {
                continue;
            }
            if !retired && serving != expected && (ordered_back.is_none() || serving != ordered_back) {
                return Err(format!(
                    "promise 4: {} comes up with {serving:?} as {}, on its disk is {record:?}",
                    device.id, of.1
                ));
            }
        }
        Ok(())
    }
}
