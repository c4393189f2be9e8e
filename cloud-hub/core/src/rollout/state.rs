//! What is stored of a rollout, and what an operator may do to it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tributary_wire::{DeviceId, LineName, Micros, ReleaseRef, Role};

use super::{Plan, Policy, Target};
use crate::selector::Selector;

/// Where a rollout stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum RolloutState {
    /// A wave is under way.
    Running {
        /// Which, from 0.
        wave: usize,
        /// Since when.
        since: Micros,
    },
    /// No device is assigned and no trial is allowed until an operator resumes or aborts.
    Paused {
        /// In which wave.
        wave: usize,
        /// Since when.
        since: Micros,
        /// Why.
        reason: String,
    },
    /// Stopped for good; the devices that took the release are on their way back.
    Stopping {
        /// Since when.
        since: Micros,
        /// Why.
        reason: String,
    },
    /// Stopped for good; no device runs the release because of this rollout.
    Stopped {
        /// Since when.
        since: Micros,
        /// Why.
        reason: String,
    },
    /// Every reachable device has committed to the release. Devices that appear later get it too.
    Completed {
        /// Since when.
        since: Micros,
    },
}

impl RolloutState {
    /// One word, as stored and shown.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Running { .. } => "running",
            Self::Paused { .. } => "paused",
            Self::Stopping { .. } => "stopping",
            Self::Stopped { .. } => "stopped",
            Self::Completed { .. } => "completed",
        }
    }

    /// Whether the release may still be handed to devices, now or after a resume.
    pub fn is_active(&self) -> bool {
        matches!(self, Self::Running { .. } | Self::Paused { .. })
    }

    /// Whether an assignment to the release may be signed or a trial of it allowed now.
    pub fn allows_install(&self) -> bool {
        matches!(self, Self::Running { .. } | Self::Completed { .. })
    }

    /// Whether it ended by going back.
    pub fn is_stopped(&self) -> bool {
        matches!(self, Self::Stopping { .. } | Self::Stopped { .. })
    }
}

/// A device that was assigned the release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// In which wave.
    pub wave: usize,
    /// When it was assigned.
    pub at: Micros,
    /// What it had before: where a rollback leads. `None`: nothing that the hub knows of.
    pub before: Option<ReleaseRef>,
    /// When it was assigned back.
    pub rolled_back: Option<Micros>,
}

/// Moving a fleet to a release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Its number at the hub; also the seed of the order of devices.
    pub id: i64,
    /// Which line.
    pub line: LineName,
    /// In which role.
    pub role: Role,
    /// The release.
    pub target: ReleaseRef,
    /// Of how many entities in 10 000 a challenger answers; 0: it is only scored.
    pub share: u16,
    /// Devices that it is for.
    pub selector: Selector,
    /// The rules.
    pub policy: Policy,
    /// When it was asked for.
    pub created: Micros,
    /// Where it stands.
    pub state: RolloutState,
    /// Devices that were assigned the release.
    pub taken: BTreeMap<DeviceId, Taken>,
}

/// Why a command does not fit the state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a rollout that is {state} cannot be {command}")]
pub struct CommandError {
    /// The command, as a participle.
    pub command: &'static str,
    /// Where the rollout stands.
    pub state: &'static str,
}

impl Rollout {
    /// A new rollout to every device, without a share; the first call of [`super::plan`] assigns its first wave.
    pub fn new(id: i64, line: LineName, role: Role, target: ReleaseRef, policy: Policy, now: Micros) -> Self {
        let state = RolloutState::Running { wave: 0, since: now };
        let (share, selector, taken) = (0, Selector::default(), BTreeMap::new());
        Self { id, line, role, target, share, selector, policy, created: now, state, taken }
    }

    fn refuse(&self, command: &'static str) -> CommandError {
        CommandError { command, state: self.state.name() }
    }

    /// Holds everything until a resume or an abort.
    pub fn pause(&mut self, reason: &str, now: Micros) -> Result<(), CommandError> {
        let RolloutState::Running { wave, .. } = self.state else { return Err(self.refuse("paused")) };
        self.state = RolloutState::Paused { wave, since: now, reason: reason.to_owned() };
        Ok(())
    }

    /// Goes on where it was paused; the wave's time begins anew.
    pub fn resume(&mut self, now: Micros) -> Result<(), CommandError> {
        let RolloutState::Paused { wave, .. } = self.state else { return Err(self.refuse("resumed")) };
        self.state = RolloutState::Running { wave, since: now };
        Ok(())
    }

    /// Stops for good; the next plan takes every device back.
    pub fn abort(&mut self, reason: &str, now: Micros) -> Result<(), CommandError> {
        if !self.state.is_active() {
            return Err(self.refuse("aborted"));
        }
        self.state = RolloutState::Stopping { since: now, reason: reason.to_owned() };
        Ok(())
    }

    /// Takes the role from every device that holds it, also from those that had it before this rollout; the next plan
    /// signs that. The way back leads to nothing.
    pub fn end(&mut self, holders: impl IntoIterator<Item = DeviceId>, reason: &str, now: Micros) {
        let taken = Taken { wave: 0, at: now, before: None, rolled_back: None };
        for device in holders {
            self.taken.insert(device, taken.clone());
        }
        self.state = RolloutState::Stopping { since: now, reason: reason.to_owned() };
    }

    /// Gives way to a newer rollout of the same line and role, which now answers for all devices.
    pub fn supersede(&mut self, by: i64, now: Micros) -> Result<(), CommandError> {
        match self.state {
            RolloutState::Running { .. } | RolloutState::Paused { .. } => return Err(self.refuse("superseded")),
            RolloutState::Stopping { .. } => {
                let reason = format!("superseded by rollout {by} before every device had confirmed");
                self.state = RolloutState::Stopped { since: now, reason };
            }
            RolloutState::Stopped { .. } | RolloutState::Completed { .. } => {}
        }
        Ok(())
    }

    /// Takes over a plan: to be stored before anything of it is signed or sent.
    pub fn apply(&mut self, plan: &Plan, now: Micros) {
        self.state = plan.next.clone();
        for assign in &plan.assign {
            match &assign.target {
                Target::Install { before } => {
                    let taken = Taken { wave: assign.wave, at: now, before: before.clone(), rolled_back: None };
                    self.taken.insert(assign.device.clone(), taken);
                }
                Target::Rollback { to } => {
                    if let Some(taken) = self.taken.get_mut(&assign.device) {
                        (taken.before, taken.rolled_back) = (to.clone(), Some(now));
                    }
                }
            }
        }
    }
}
