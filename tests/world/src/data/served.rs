//! Packages that devices serve with, so that there are predictions and sketches of them.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use edge_agent::packages::{ActivePackage, PackageFiles};
use tributary_features::View;
use tributary_process::disk::{Access, SimDisk, replace};
use tributary_release::{Probation, digest};
use tributary_wire::{LineName, Micros, ReleaseRef, VersionNumber};

use crate::package::Recipe;

const FOLDER: &str = "/packages";

/// Packages of the line.
pub const VERSIONS: u32 = 2;

/// The line of the devices.
pub fn line() -> LineName {
    LineName::new("card-fraud").expect("a name")
}

/// The package of this version, from 1. Opened once and then shared by all worlds: it does not change.
pub fn package(version: u32) -> Arc<ActivePackage> {
    static OPENED: [OnceLock<Arc<ActivePackage>>; VERSIONS as usize] = [const { OnceLock::new() }; VERSIONS as usize];
    OPENED[version as usize - 1].get_or_init(|| open(version)).clone()
}

fn open(version: u32) -> Arc<ActivePackage> {
    let probation = Probation {
        min_predictions: 1,
        max_error_share: 1.0,
        max_latency_p99_us: 1_000_000,
        output_mean_low: 0.0,
        output_mean_high: 1.0,
        timeout_s: 60,
    };
    let view = View::from_toml(tributary_fraud::VIEW_TOML).expect("a view");
    let weight = version as f32 * 1e-4;
    let file = Recipe { line: line(), version, created: Micros(0), view: &view, weight, wrong: 0.0, probation }.make();
    let release = ReleaseRef { version: VersionNumber(version), length: file.len() as u64, sha256: digest(&file) };
    let disk = SimDisk::new();
    let files = PackageFiles::open_on(Arc::new(disk.clone()), FOLDER.into(), None).expect("a disk that works");
    let path = Path::new(FOLDER).join(format!("{}.tpk", release.sha256));
    replace(&disk, &path, &file, Access::Everyone).expect("a disk that works");
    Arc::new(ActivePackage::open(&files, &line(), &release).expect("a package"))
}
