//! Whoever runs the fleet: publishes, rolls out, changes their mind, and at last wants one good release everywhere.

use std::time::Duration;

use cloud_hub_core::rollout::{Policy, RolloutState, Strategy};
use rand::Rng;
use tributary_wire::{Micros, Role, Sha256};

use super::hub::Command;
use super::packages::Kind;
use super::world::{Event, World};

/// How long after the last fault open rollouts may take to end by themselves, then after they were resumed, then until
/// everybody has the last release.
const PATIENCE: [i64; 3] = [40 * 60, 40 * 60, 90 * 60];

/// What they are about.
#[derive(Debug, Default)]
pub(super) struct Operator {
    stage: usize,
    /// When the stage began.
    since: Option<Micros>,
    /// The release that everybody shall have at last, and its rollout.
    last: Option<(i64, Sha256)>,
    /// Everything is as it should be.
    pub(super) content: bool,
}

fn challenger() -> Role {
    Role::new("challenger-b").expect("a name")
}

impl World {
    pub(super) fn operate(&mut self) {
        if self.is_rough() {
            self.whim();
            let wait = self.span(5_000, 240_000);
            self.after(wait, Event::Operate);
        } else {
            self.settle();
            self.after(Duration::from_secs(20), Event::Operate);
        }
    }

    /// Whatever comes to their mind.
    fn whim(&mut self) {
        if !self.hub.up {
            return;
        }
        let newest: Vec<i64> = self.hub.record.newest().into_values().collect();
        let one = newest.get(self.chance.random_range(0..newest.len().max(1))).copied();
        match (self.chance.random_range(0..10), one) {
            // A restored hub asks what shall become of packages that it does not know.
            (5, _) if self.hub.record.leaves_alone() => {
                if self.chance.random_bool(0.5) || !self.hub.send_again(self.expires()) {
                    self.hub.overrule();
                }
            }
            (0, Some(id)) => self.command(id, Command::Pause),
            (1, Some(id)) => self.command(id, Command::Resume),
            (2, Some(id)) => self.command(id, Command::Abort),
            (3, Some(id)) if self.hub.record.rollouts[&id].rollout.role == challenger() => {
                self.command(id, Command::End);
            }
            (4, _) => self.again(),
            _ => {
                use Kind::{Crashing, Demanding, Failing, Golden, Good, Harmful};
                let kinds = [Good, Good, Good, Good, Crashing, Failing, Golden, Demanding, Harmful];
                let kind = kinds[self.chance.random_range(0..kinds.len())];
                self.roll_out(kind);
            }
        }
    }

    fn command(&mut self, id: i64, command: Command) {
        if let Some(out) = self.hub.command(id, command, self.now, &mut self.ledger) {
            self.figures.commands += 1;
            self.send(out);
        }
    }

    /// An older version once more, as a rollout of its own.
    fn again(&mut self) {
        let known: Vec<u32> = self.hub.record.releases.keys().copied().collect();
        if known.is_empty() {
            return;
        }
        let version = known[self.chance.random_range(0..known.len())];
        self.begin(Role::primary(), version);
    }

    fn roll_out(&mut self, kind: Kind) {
        let role = if self.chance.random_bool(0.2) { challenger() } else { Role::primary() };
        let version = self.hub.publish(kind, self.expires(), &mut self.ledger);
        self.begin(role, version);
    }

    fn begin(&mut self, role: Role, version: u32) {
        let percent =
            [vec![100], vec![10, 50, 100], vec![20, 100], vec![50, 100]][self.chance.random_range(0..4)].clone();
        let policy = Policy {
            strategy: if percent.len() == 1 { Strategy::All } else { Strategy::Waves },
            percent,
            undone_max: self.chance.random_range(0..2),
            min_predictions: 300,
            max_harm: 0.1,
            wave_timeout_s: 1_200,
            ..Policy::default()
        };
        if let Some((_, out)) = self.hub.begin(&role, version, policy, self.now, &mut self.ledger) {
            self.figures.rollouts += 1;
            self.send(out);
        }
    }

    fn open(&self) -> Vec<i64> {
        let newest = self.hub.record.newest().into_values();
        let is_open = |id: &i64| {
            let state = &self.hub.record.rollouts[id].rollout.state;
            !matches!(state, RolloutState::Stopped { .. } | RolloutState::Completed { .. })
        };
        newest.filter(is_open).collect()
    }

    /// Brings everything to its end.
    fn settle(&mut self) {
        let since = *self.operator.since.get_or_insert(self.now);
        if !self.hub.up {
            return;
        }
        let waited = self.now.since(since) / Micros::SECOND;
        let open = self.open();
        self.hub.overrule();
        match self.operator.stage {
            // Left to themselves, rollouts end, or pause.
            0 if open.is_empty() || waited > PATIENCE[0] => {
                open.iter().for_each(|id| self.command(*id, Command::Resume));
                self.stage(1);
            }
            1 if open.is_empty() || waited > PATIENCE[1] => {
                open.iter().for_each(|id| self.command(*id, Command::Abort));
                let newest = self.hub.record.newest();
                if let Some(id) = newest.get(&challenger()) {
                    self.command(*id, Command::End);
                }
                self.stage(2);
            }
            // What a restored hub leaves alone takes part again only with a newer rollout.
            2 if open.is_empty() || self.hub.record.leaves_alone() => {
                let version = self.hub.publish(Kind::Good, self.expires(), &mut self.ledger);
                let policy = Policy { strategy: Strategy::All, wave_timeout_s: 86_400, ..Policy::default() };
                let sha256 = self.hub.record.releases[&version].0.sha256;
                let begun = self.hub.begin(&Role::primary(), version, policy, self.now, &mut self.ledger);
                if let Some((id, out)) = begun {
                    self.operator.last = Some((id, sha256));
                    self.send(out);
                    self.stage(3);
                }
            }
            3 => {
                let Some((id, sha256)) = self.operator.last else { return };
                let state = &self.hub.record.rollouts[&id].rollout.state;
                let completed = matches!(state, RolloutState::Completed { .. });
                self.operator.content =
                    completed && open.is_empty() && self.committed(&Role::primary(), &sha256) && self.is_quiet();
            }
            _ => {}
        }
    }

    fn stage(&mut self, stage: usize) {
        (self.operator.stage, self.operator.since) = (stage, Some(self.now));
    }

    /// What has not come to its end in time.
    pub(super) fn overdue(&self) -> Option<String> {
        let since = self.operator.since?;
        let waited = self.now.since(since) / Micros::SECOND;
        let stage = self.operator.stage;
        if self.operator.content || stage < 2 || waited <= PATIENCE[2] {
            return None;
        }
        let mut words = match stage {
            2 => format!("promise 6: {} s after they were stopped rollouts are still open:", waited),
            _ => format!("does not converge: {waited} s after the last rollout began:"),
        };
        for id in self.hub.record.newest().into_values() {
            let rollout = &self.hub.record.rollouts[&id].rollout;
            words.push_str(&format!(
                "\n  rollout {id} of {} as {}: {:?}",
                rollout.target.version, rollout.role, rollout.state
            ));
        }
        for (number, device) in self.devices.iter().enumerate() {
            let signed = self.hub.record.generation(&device.id);
            let Some(life) = &device.life else {
                words.push_str(&format!("\n  {} is off", device.id));
                continue;
            };
            words.push_str(&format!(
                "\n  {} generation {} of {signed}, online {}, problem {:?}, metadata {:?} {:?}, files {}",
                device.id,
                life.lines.generation(),
                life.connected,
                life.lines.problem(),
                life.trust.versions().map(|it| it.snapshot),
                life.trust.problem(),
                self.files(number),
            ));
            for (of, updater) in life.lines.updaters() {
                words.push_str(&format!("\n    {} {:?}", of.1, updater.record()));
                words.push_str(&format!("\n    {:?}", updater.report("").error));
            }
        }
        Some(words)
    }
}
