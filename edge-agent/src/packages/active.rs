//! A package that passed every check and is ready to serve.

use std::panic::AssertUnwindSafe;

use tributary_features::{View, ViewError};
use tributary_inference::{Engine, GoldenMismatch, InferenceError, check_golden, load_cpu};
use tributary_release::{Package, PackageError, is_enough};
use tributary_wire::{LineName, PackageRef, ReleaseRef, VersionNumber};

use super::files::{FileError, PackageFiles};
use crate::words::panic_in_words;

/// A package and the engine that runs its graph. Whoever holds one holds the proof that its file, members, view and
/// golden cases were checked: [`ActivePackage::open`] is the only way to get one.
pub struct ActivePackage {
    /// Its line.
    pub line: LineName,
    /// Its number and content.
    pub reference: PackageRef,
    /// Its members.
    pub package: Package,
    /// Its feature view.
    pub view: View,
    /// The engine, loaded with the graph that the manifest names.
    pub engine: Box<dyn Engine>,
}

/// Why a package file may not serve. Checked in this order.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// 1 and 2: it cannot be read, or its length or hash are not the released ones.
    #[error(transparent)]
    File(#[from] FileError),
    /// 3: its members do not fit together.
    #[error("package")]
    Package(#[from] PackageError),
    /// 4: it says that it is another package than the release says.
    #[error("the package says it is {found_line} version {found}, the release says {line} version {expected}")]
    Identity {
        /// As released.
        line: LineName,
        /// As released.
        expected: VersionNumber,
        /// In the manifest.
        found_line: LineName,
        /// In the manifest.
        found: VersionNumber,
    },
    /// 5: it needs a newer agent.
    #[error("the package needs agent {needed}, this is {found}")]
    Agent {
        /// In the manifest.
        needed: String,
        /// This build.
        found: &'static str,
    },
    /// 6: its feature view is not one.
    #[error("feature view of the package")]
    View(#[from] ViewError),
    /// 7: its view gives other features than its graph takes.
    #[error("the graph takes {graph:?}, the view gives {view:?}")]
    Features {
        /// In the manifest.
        graph: Vec<String>,
        /// In the view.
        view: Vec<String>,
    },
    /// 8: no engine loads its graph.
    #[error("graph of the package")]
    Engine(#[from] InferenceError),
    /// 9: the engine gives other answers here than where the package was made.
    #[error("golden cases of the package")]
    Golden(#[from] GoldenMismatch),
    /// At any of these: a library panicked.
    #[error("a library gave up over the package: {problem}")]
    Panicked {
        /// What it said.
        problem: String,
    },
}

impl ActivePackage {
    /// Reads and checks everything, in the order of [`OpenError`]. Takes milliseconds to seconds of one core.
    pub fn open(files: &PackageFiles, line: &LineName, expected: &ReleaseRef) -> Result<Self, OpenError> {
        // Engines panic over some graphs. That is the package's failure, and must not keep the agent from starting.
        let opened = std::panic::catch_unwind(AssertUnwindSafe(|| Self::open_unguarded(files, line, expected)));
        opened.unwrap_or_else(|panic| Err(OpenError::Panicked { problem: panic_in_words(&*panic) }))
    }

    fn open_unguarded(files: &PackageFiles, line: &LineName, expected: &ReleaseRef) -> Result<Self, OpenError> {
        let file = files.read(expected)?;
        let package = Package::read(&file)?;
        let manifest = &package.manifest;
        if (&manifest.line, manifest.version) != (line, expected.version) {
            return Err(OpenError::Identity {
                line: line.clone(),
                expected: expected.version,
                found_line: manifest.line.clone(),
                found: manifest.version,
            });
        }
        if !is_enough(&manifest.requires.agent, crate::VERSION) {
            return Err(OpenError::Agent { needed: manifest.requires.agent.clone(), found: crate::VERSION });
        }
        let view = View::from_toml(&package.view_toml)?;
        let features: Vec<String> = view.feature_names().iter().map(|name| name.to_string()).collect();
        if features != manifest.features {
            return Err(OpenError::Features { graph: manifest.features.clone(), view: features });
        }
        let engine = load_cpu(&package.served().onnx, manifest.features.len())?;
        check_golden(engine.as_ref(), &package)?;
        let reference = PackageRef { version: expected.version, sha256: expected.sha256 };
        Ok(Self { line: line.clone(), reference, package, view, engine })
    }
}
