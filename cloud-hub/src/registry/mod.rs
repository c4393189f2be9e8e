//! What the hub knows about models: feature views, immutable versions, aliases with their whole history, package files.
//!
//! Functions take a connection, so that a caller can put several changes into one transaction.

pub mod views;
pub mod packages;
pub mod versions;
pub mod aliases;
pub mod needs;

use tributary_wire::{LineName, Sha256, VersionNumber};

/// Why the registry refuses.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No feature view of that name (and version).
    #[error("there is no feature view {0}")]
    NoView(String),
    /// The text is not a feature view.
    #[error("the feature view is not valid: {0}")]
    BadView(#[from] tributary_features::ViewError),
    /// A view's text changed without a new version.
    #[error("feature view {name} version {version} exists with other content; give the changed one a new version")]
    ViewExists {
        /// Name of the view.
        name: String,
        /// Its version.
        version: u32,
    },
    /// No such line.
    #[error("there is no model line {0}")]
    NoLine(LineName),
    /// No such version.
    #[error("model line {0} has no version {1}")]
    NoVersion(LineName, VersionNumber),
    /// No such alias.
    #[error("model line {0} has no alias {1:?}")]
    NoAlias(LineName, String),
    /// An alias is a name like the others.
    #[error(transparent)]
    BadAlias(#[from] cloud_hub_core::registry::AliasError),
    /// The alias was moved since the caller looked.
    #[error("alias {alias:?} points to {found}, If-Match expected {expected}")]
    AliasMoved {
        /// Which alias.
        alias: String,
        /// What the caller believed.
        expected: i64,
        /// Where it points.
        found: String,
    },
    /// Versions are immutable.
    #[error("version {1} of model line {0} exists with another package; versions never change")]
    VersionExists(LineName, VersionNumber),
    /// The number belongs to a run that is under way.
    #[error("version {version} of model line {line} is reserved for run {run}")]
    VersionReserved {
        /// Which line.
        line: LineName,
        /// Which number.
        version: VersionNumber,
        /// Whose it is.
        run: i64,
    },
    /// The package is of another line.
    #[error("the package is of model line {found}, expected {expected}")]
    OtherLine {
        /// Line it was sent to.
        expected: LineName,
        /// Line in its manifest.
        found: LineName,
    },
    /// The package is damaged or contradicts itself.
    #[error("the package is refused: {0}")]
    Package(#[from] tributary_release::PackageError),
    /// The served graph is none.
    #[error("the served graph {graph} cannot be read: {problem}")]
    Graph {
        /// Its name.
        graph: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A device without these operators would fetch the package in vain.
    #[error(
        "the served graph {graph} uses operators that the package does not require: {}; name them in requires.operators \
         of its manifest", operators.join(", ")
    )]
    Undeclared {
        /// Its name.
        graph: String,
        /// The operators that are missing in the manifest.
        operators: Vec<String>,
    },
    /// Nothing with that hash.
    #[error("there is no package {0}")]
    NoPackage(Sha256),
    /// A file could not be written or read.
    #[error("package file")]
    File(#[from] std::io::Error),
    /// The catalog failed.
    #[error("catalog")]
    Catalog(#[from] sqlx::Error),
    /// What the catalog holds cannot be read.
    #[error("the catalog holds {what} that cannot be read: {problem}")]
    Unreadable {
        /// What.
        what: &'static str,
        /// Why.
        problem: String,
    },
}

impl RegistryError {
    /// For a value in the catalog that this build cannot read.
    pub fn unreadable(what: &'static str, problem: impl ToString) -> Self {
        Self::Unreadable { what, problem: problem.to_string() }
    }
}
