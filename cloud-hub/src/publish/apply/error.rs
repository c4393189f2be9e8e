//! Why signed files are not taken.

use tributary_wire::Micros;

use crate::publish::PublishError;
use crate::publish::roles::{RoleError, RoleName};

/// Why signed files are refused; none of a call is stored then.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Not metadata, or not signed by enough of those who may.
    #[error(transparent)]
    Role(#[from] RoleError),
    /// There was nothing.
    #[error("no file was sent; expected signed metadata of root, targets or a delegated role")]
    Nothing,
    /// The hub signs these itself.
    #[error("{role} is signed by the hub alone, with keys that root lists; it is not taken from outside")]
    Online {
        /// Which role.
        role: RoleName,
    },
    /// It is past its time already.
    #[error("{role} {version} expired at {expires}")]
    Expired {
        /// Which role.
        role: RoleName,
        /// Which version.
        version: u64,
        /// When.
        expires: Micros,
    },
    /// Its number leaves no room.
    #[error(
        "{role} has version {found}, and version {known} is in force: at most {most} is taken; `cloud-hub keys draft` \
         writes version {}", known + 1
    )]
    Leap {
        /// Which role.
        role: RoleName,
        /// The version in force.
        known: u64,
        /// The highest that is taken.
        most: u64,
        /// The version that was sent.
        found: u64,
    },
    /// The targets do not delegate to the role.
    #[error("the targets in force know no role {role}")]
    NotDelegated {
        /// Which role.
        role: RoleName,
    },
    /// A new root and the targets in force do not fit together.
    #[error(
        "after this root the targets in force count no longer ({problem}); sign targets anew and apply both at once"
    )]
    Targets {
        /// Why they do not count.
        problem: RoleError,
    },
    /// The hub could sign no assignment.
    #[error("the targets announce keys for assignments ({announced}) of which the hub holds none")]
    Assignments {
        /// The keys, by name.
        announced: String,
    },
    /// A target that its role should not name, or not so.
    #[error("{role} names {path}: {problem}")]
    Target {
        /// Which role.
        role: RoleName,
        /// Which target.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Something would be gone.
    #[error("{role} {version} no longer names {}; say that they are to be withdrawn, or name them", dropped.join(", "))]
    Drops {
        /// Which role.
        role: RoleName,
        /// Which version.
        version: u64,
        /// What was named before.
        dropped: Vec<String>,
    },
    /// Version, keys, catalog.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl From<sqlx::Error> for ApplyError {
    fn from(error: sqlx::Error) -> Self {
        Self::Publish(error.into())
    }
}

impl From<crate::registry::RegistryError> for ApplyError {
    fn from(error: crate::registry::RegistryError) -> Self {
        Self::Publish(error.into())
    }
}
