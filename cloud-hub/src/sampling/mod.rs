//! What devices send of their raw observations: policies by labels, each change with a number that devices report back.
//!
//! A device keeps to the policy with the most labels among those that mean it; of several with as many, to the first by
//! name. It travels in the device's signed assignment.

mod policy;
mod store;

pub use policy::{Policy, RarePolicy, UncertainPolicy};
pub use store::{Change, Policies, Stored, clear, get, history, put};

use tributary_wire::{GroupName, SamplingError};

/// Most policies at once: all of them are looked at for every device.
pub const MAX_POLICIES: usize = 64;

/// Why a policy cannot be set, shown or taken back.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It makes no sense.
    #[error("the sampling policy is refused: {0}")]
    Refused(#[from] SamplingError),
    /// There is none of that name.
    #[error("there is no sampling policy {0}")]
    NotFound(GroupName),
    /// Somebody else changed it.
    #[error("sampling policy {name} is at change {found}, If-Match expected {expected}")]
    Changed {
        /// Which.
        name: GroupName,
        /// Its newest change; 0: there is none.
        found: i64,
        /// As asked for.
        expected: i64,
    },
    /// Too many.
    #[error("there are {MAX_POLICIES} sampling policies already; take one back before setting {0}")]
    TooMany(GroupName),
    /// What the catalog holds cannot be read.
    #[error("the catalog holds a sampling policy that cannot be read: {0}")]
    Unreadable(String),
    /// The catalog failed.
    #[error("catalog")]
    Catalog(#[from] sqlx::Error),
}
