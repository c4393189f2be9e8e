//! A library panics while a package is opened.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tributary_process::disk::{Access, Disk, Growing, ReadAt, RealDisk};
use tributary_wire::{ReleaseRef, UpdaterState};

use super::{Device, Life, PROBATION, assignment, package};
use crate::packages::PackageFiles;

/// Opening this file panics.
#[derive(Debug)]
struct Mined(PathBuf);

impl Disk for Mined {
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        assert!(path != self.0, "a node that no engine expects");
        RealDisk.open(path)
    }

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        RealDisk.create_folder(folder)
    }

    fn open_at(&self, path: &Path) -> io::Result<Arc<dyn ReadAt>> {
        RealDisk.open_at(path)
    }

    fn create(&self, path: &Path, access: Access) -> io::Result<Box<dyn Growing>> {
        RealDisk.create(path, access)
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn Growing>> {
        RealDisk.append(path)
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        RealDisk.length(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(folder)
    }

    fn folders(&self, folder: &Path) -> io::Result<Vec<String>> {
        RealDisk.folders(folder)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        RealDisk.sync_folder(folder)
    }

    fn free(&self, folder: &Path) -> io::Result<u64> {
        RealDisk.free(folder)
    }
}

/// A life in which no library can open this package.
fn start_without(device: &Device, release: &ReleaseRef) -> Life {
    device.start_with(|parts| {
        let folder = device.rig.folder.path().join("packages");
        let disk = Arc::new(Mined(parts.files.path(&release.sha256)));
        parts.files = PackageFiles::open_on(disk, folder, None).unwrap();
    })
}

fn why_undone(life: &Life) -> String {
    life.handle.lines()[0].undone.clone().unwrap().1
}

#[test]
fn a_start_with_a_package_over_which_a_library_panics_falls_back() {
    let device = Device::new();
    let life = device.start();
    let releases = [1, 2].map(|version| device.hub.publish(version, package(version, PROBATION)));
    for (version, release) in (1..).zip(&releases) {
        life.assign(&assignment(u64::from(version), release.clone(), false));
        life.until_state(UpdaterState::Committed, Some(version));
    }
    life.stop();

    let life = start_without(&device, &releases[1]);
    assert_eq!(life.serving(), Some(1), "the previous one");
    life.until_state(UpdaterState::RolledBack, Some(1));
    assert!(why_undone(&life).contains("a node that no engine expects"), "{}", why_undone(&life));
    life.stop();

    let life = start_without(&device, &releases[0]);
    assert_eq!(life.serving(), None, "the declared fallback");
    life.stop();
}

#[test]
fn a_release_over_which_a_library_panics_is_refused_at_once() {
    let device = Device::new();
    let release = device.hub.publish(1, package(1, PROBATION));
    let life = start_without(&device, &release);
    life.handle.online(true);
    life.handle.assigned(assignment(1, release, false).encode());
    life.until_state(UpdaterState::RolledBack, None);
    assert!(why_undone(&life).contains("a library gave up"), "{}", why_undone(&life));
    assert_eq!(device.hub.starts(), [0]);
    life.stop();
}
