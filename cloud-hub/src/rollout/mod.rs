//! Drives rollouts: asks the planner, stores what it decides, signs, and sends.
//!
//! The order never changes: state and devices, then wishes, then signatures, all in one transaction; only then is
//! anything sent. What was sent and lost is sent again when the device's report shows that it lacks it.

mod store;
mod fleet;
mod assignments;
pub mod flags;
mod roles;
mod engine;
mod driver;
mod restored;

pub use cloud_hub_core::rollout::{Counters, Member};
pub use driver::{Config, command, flag, refresh, run, share, start};
pub use engine::{Changed, Command};
pub use fleet::{labels_of as labels, members};
pub use restored::{follow, pause_all};
pub use roles::Order;
pub use store::{Step, Stored};

/// What the web API reads.
pub mod read {
    pub use super::engine::outlook;
    pub(crate) use super::fleet::members;
    pub use super::store::{get, list, newest, steps};
}

use cloud_hub_core::drift::SettingsError;
use cloud_hub_core::rollout::CommandError;
use tributary_wire::{IdError, LineName, Role, VersionNumber};

/// Why a rollout cannot be begun or changed.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// No such rollout.
    #[error("there is no rollout {rollout}")]
    NotFound {
        /// Its number.
        rollout: i64,
    },
    /// The version has no release.
    #[error("version {version} of model line {line} is not published")]
    NotPublished {
        /// Which line.
        line: LineName,
        /// Which version.
        version: VersionNumber,
    },
    /// Nobody has signed the release yet.
    #[error(
        "version {version} of model line {line} is not yet in signed metadata: the line is attended, and somebody who \
         holds its key has to sign the release first (`cloud-hub keys draft` gives the file)"
    )]
    Waiting {
        /// Which line.
        line: LineName,
        /// Which version.
        version: VersionNumber,
    },
    /// It is a release no more.
    #[error("version {version} of model line {line} was withdrawn")]
    Withdrawn {
        /// Which line.
        line: LineName,
        /// Which version.
        version: VersionNumber,
    },
    /// A role that no device knows.
    #[error("role {role} is none: expected primary, shadow or challenger-<name>")]
    Role {
        /// As asked for.
        role: Role,
    },
    /// Only challengers answer a share.
    #[error("{role} has no share of the predictions: the primary answers what no challenger does, a shadow nothing")]
    NoShare {
        /// Which role.
        role: Role,
    },
    /// More predictions are shared out than there are.
    #[error(
        "a share of {share} in 10000 for {role} of model line {line} is too much: other challengers have {others} \
         on {device}"
    )]
    Shares {
        /// Which line.
        line: LineName,
        /// Which role.
        role: Role,
        /// Asked for.
        share: u16,
        /// What the others have together.
        others: u64,
        /// Where: a device, or all that a rollout is for.
        device: String,
    },
    /// The role that answers is never ended.
    #[error("the primary of model line {line} cannot be ended: a device always has one; roll out another version")]
    Primary {
        /// Which line.
        line: LineName,
    },
    /// A newer rollout answers for the role.
    #[error("rollout {rollout} was followed by rollout {by}, which answers for {role} of model line {line} now")]
    Superseded {
        /// Its number.
        rollout: i64,
        /// The newer one's.
        by: i64,
        /// Which line.
        line: LineName,
        /// Which role.
        role: Role,
    },
    /// A flag that is none.
    #[error(transparent)]
    Flag(#[from] flags::FlagError),
    /// Another one of the same line and role is under way.
    #[error("rollout {rollout} of model line {line} as {role} is {state}; abort it first")]
    UnderWay {
        /// Its number.
        rollout: i64,
        /// Which line.
        line: LineName,
        /// In which role.
        role: Role,
        /// Where it stands.
        state: &'static str,
    },
    /// The policy makes no sense.
    #[error("the rollout policy is refused: {0}")]
    Policy(#[from] SettingsError),
    /// The command does not fit the state.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Somebody else changed the rollout since it was read.
    #[error("rollout {rollout} was changed by somebody else meanwhile")]
    Fenced {
        /// Its number.
        rollout: i64,
    },
    /// What the catalog holds cannot be read.
    #[error("the catalog holds {what} that cannot be read: {problem}")]
    Unreadable {
        /// What.
        what: &'static str,
        /// Why.
        problem: String,
    },
    /// The registry refused.
    #[error(transparent)]
    Registry(#[from] crate::registry::RegistryError),
    /// What the catalog holds as an id is none.
    #[error("the catalog holds an id that cannot be read")]
    Id(#[from] IdError),
    /// What is sampled.
    #[error(transparent)]
    Sampling(#[from] crate::sampling::PolicyError),
    /// The catalog failed.
    #[error("catalog")]
    Catalog(#[from] sqlx::Error),
}

#[cfg(test)]
mod tests;
