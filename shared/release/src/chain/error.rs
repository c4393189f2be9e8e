//! Why metadata is not believed.

use std::io;

use tributary_wire::Micros;

use super::SourceError;

/// Why a refresh failed or a target is not vouched for.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The repository cannot be reached, or sends too much or too slowly.
    #[error("file {file} of the repository")]
    Source {
        /// Which file was asked for.
        file: String,
        /// What the source said.
        source: SourceError,
    },
    /// A file that must be there is not, or not within the limits.
    #[error("repository: {problem}")]
    Repository {
        /// In words.
        problem: String,
    },
    /// Verified metadata could not be made durable.
    #[error("store of metadata")]
    Store(#[source] io::Error),
    /// A role's metadata is too old to begin anything with.
    #[error("{role} metadata expired at {expires}")]
    Expired {
        /// Which role.
        role: String,
        /// When.
        expires: Micros,
    },
    /// Somebody offers metadata that is older than what was believed before.
    #[error("{role} went back from version {trusted} to {found}")]
    Rollback {
        /// Which role.
        role: String,
        /// What was believed.
        trusted: u64,
        /// What came.
        found: u64,
    },
    /// Not enough of the role's keys have signed.
    #[error("{role} metadata has {found} valid signatures of its role's keys, {needed} are needed")]
    Signatures {
        /// Which role.
        role: String,
        /// How many were good.
        found: usize,
        /// How many it takes.
        needed: usize,
    },
    /// A file is not the one that the file above it names.
    #[error("metadata does not belong together: {problem}")]
    Mismatch {
        /// What differs.
        problem: String,
    },
    /// A file is not metadata of its role.
    #[error("{role} metadata cannot be read: {problem}")]
    Malformed {
        /// Which role, as far as is known.
        role: String,
        /// In words.
        problem: String,
    },
    /// No role that may list this path does.
    #[error("target {path} is not listed by any role that may list it")]
    NotListed {
        /// Which target.
        path: String,
    },
    /// Asked for a target before anything was verified.
    #[error("no metadata is verified yet: refresh first")]
    NotRefreshed,
    /// Not a time.
    #[error("{found} is out of the range of times")]
    Instant {
        /// What was given.
        found: Micros,
    },
}

impl ChainError {
    /// Whether trying again later, perhaps elsewhere, may help: nothing was proven to be wrong.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Source { .. } | Self::Repository { .. } | Self::Store(_))
    }

    pub(super) fn from_tuf(role: &str, error: sigstore_tuf::Error) -> Self {
        use sigstore_tuf::Error;
        match error {
            Error::Expired { role, expires } => Self::Expired { role, expires: Micros(expires.as_microsecond()) },
            Error::Rollback { role, trusted, new } => Self::Rollback { role, trusted, found: new },
            Error::BadRootVersion { trusted, new } => {
                Self::Mismatch { problem: format!("root version {new} does not follow the trusted {trusted}") }
            }
            Error::ThresholdNotMet { role, found, threshold } => Self::Signatures { role, found, needed: threshold },
            Error::IntegrityMismatch(problem) => Self::Mismatch { problem },
            Error::TargetNotFound(path) => Self::NotListed { path },
            Error::NotRefreshed => Self::NotRefreshed,
            Error::Io { context, source } => Self::Store(io::Error::new(source.kind(), format!("{context}: {source}"))),
            Error::Transport { message, .. } => Self::Repository { problem: message },
            other => Self::Malformed { role: role.to_owned(), problem: other.to_string() },
        }
    }
}
