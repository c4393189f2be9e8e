//! Why the repository refuses.

use tributary_wire::{LineName, VersionNumber};

use crate::registry::RegistryError;

/// Why something is not published, signed, stored or served.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// There is no root yet.
    #[error("this hub has no signed repository yet; make one with `cloud-hub keys init --out DIR --line LINE`")]
    NoRepository,
    /// The top-level targets do not speak of the line.
    #[error(
        "the repository has no role models/{line}: the targets key has to delegate to it; \
         `cloud-hub keys draft targets --line {line} --out DIR` writes what is to be signed"
    )]
    NoRole {
        /// Which line.
        line: LineName,
    },
    /// A withdrawn release never comes back.
    #[error("version {version} of model line {line} was withdrawn; train or upload a new version")]
    Withdrawn {
        /// Which line.
        line: LineName,
        /// Which version.
        version: VersionNumber,
    },
    /// Nobody ever asked for a release of it.
    #[error("version {version} of model line {line} was never published: there is nothing to withdraw")]
    NoRelease {
        /// Which line.
        line: LineName,
        /// Which version.
        version: VersionNumber,
    },
    /// Only a person can sign the line without it.
    #[error(
        "model line {line} is attended, and its key alone can take version {version} back: `cloud-hub keys draft {line} \
         --withdraw {path} --out DIR` writes what is to be signed, and `cloud-hub keys apply --withdraw` gives it to the hub"
    )]
    Attended {
        /// Which line.
        line: LineName,
        /// Which version.
        version: VersionNumber,
        /// Where its package lies.
        path: String,
    },
    /// Devices are to run it.
    #[error(
        "version {version} of model line {line} is still wanted by {}; roll out another version first, or abort the \
         rollout, or say that it is to be withdrawn even so",
        by.join(", ")
    )]
    Wanted {
        /// Which line.
        line: LineName,
        /// Which version.
        version: VersionNumber,
        /// Who wants it.
        by: Vec<String>,
    },
    /// The hub lacks the secret keys of a role that it is to sign.
    #[error("the hub cannot sign {role}: it holds {found} of the keys listed for it, {expected} are needed")]
    NoKey {
        /// Which role.
        role: String,
        /// How many signatures it needs.
        expected: u64,
        /// How many of the listed keys the hub holds.
        found: usize,
    },
    /// Versions of metadata only grow.
    #[error("{role} has version {found}, expected {expected}{}", if *exactly { "" } else { " or higher" })]
    Version {
        /// Which role.
        role: String,
        /// The least that is taken,
        expected: u64,
        /// or the only one.
        exactly: bool,
        /// The version that was sent.
        found: u64,
    },
    /// Metadata could not be read, built or signed.
    #[error(transparent)]
    Role(#[from] super::roles::RoleError),
    /// The registry refused.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The catalog failed.
    #[error("catalog")]
    Catalog(#[from] sqlx::Error),
    /// A key or package file could not be read or written.
    #[error(transparent)]
    File(#[from] anyhow::Error),
}
