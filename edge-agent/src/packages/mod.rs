//! Packages on this device: the files, and what it takes before one of them may serve.

mod active;
mod files;
mod partial;
mod patches;
mod turn;

pub use active::{ActivePackage, OpenError};
pub use files::{FileError, NoRoom, PackageFiles};
pub use partial::Partial;
