//! Packages on this device: the files, and what it takes before one of them may serve.

mod active;
mod files;

pub use active::{ActivePackage, OpenError};
pub use files::{PackageFiles, Partial};
