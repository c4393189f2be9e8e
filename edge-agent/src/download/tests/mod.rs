//! Downloads over real sockets, with everything that can go wrong on the way.

mod further;
mod patches;
mod server;
mod stories;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tributary_identity::{Authority, DeviceClock, Ports};
use tributary_process::clock::{Clock, SystemClock};
use tributary_process::config::{ByteSize, HumanDuration};
use tributary_release::digest;
use tributary_wire::{DeviceId, LineName, Micros, ReleaseRef, VersionNumber};

use super::{DownloadConfig, DownloadError, Origins, Parts};
use crate::identity::{Identity, Time, Web};
use crate::link::FileStreams;
use crate::metrics::DownloadMetrics;
use crate::packages::PackageFiles;

/// A wall clock that a test sets.
struct SetClock(SystemClock, AtomicI64);

impl Clock for SetClock {
    fn wall(&self) -> i64 {
        self.1.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> u64 {
        self.0.monotonic()
    }
}

/// A device's folder, and what it is told to fetch.
struct Device {
    folder: TempDir,
    line: LineName,
    file: Vec<u8>,
    release: ReleaseRef,
    clock: Arc<SetClock>,
    time: Time,
}

impl Device {
    fn new() -> Self {
        let file: Vec<u8> = (0..300_000_u32).map(|place| (place.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let release = ReleaseRef { version: VersionNumber(3), length: file.len() as u64, sha256: digest(&file) };
        let clock = Arc::new(SetClock(SystemClock::start(), AtomicI64::new(tributary_process::clock::wall_now())));
        let time = Time::of(DeviceClock::new(Micros(0)));
        Self { folder: tempfile::tempdir().unwrap(), line: LineName::new("fraud").unwrap(), file, release, clock, time }
    }

    fn identity(&self, authority: &Authority, https: u16) -> Arc<Identity> {
        let (id, ports) = (DeviceId::new("edge-1").unwrap(), Ports { host: None, https, tls: None, quic: None });
        crate::identity::tests::identity(self.folder.path(), authority, &id, ports)
    }

    /// A process begins: nothing is left of an earlier one but the disk.
    fn files(&self) -> PackageFiles {
        PackageFiles::open(self.folder.path().join("packages")).unwrap()
    }

    fn origins(&self, config: DownloadConfig, web: Web, streams: FileStreams) -> Origins {
        let hours = config.budget.hours().unwrap();
        let parts = Parts {
            config,
            web,
            streams,
            time: self.time.clone(),
            clock: self.clock.clone(),
            metrics: DownloadMetrics::default(),
            seed: 1,
        };
        Origins::new(parts, hours).unwrap()
    }

    /// With these mirrors alone.
    fn mirrors(&self, servers: &[&server::Server]) -> Origins {
        self.origins(mirrors(servers), Web::Nowhere, FileStreams::default())
    }

    async fn fetch(&self, origins: &Origins) -> Result<(), DownloadError> {
        let files = self.files();
        let fetched = origins.package(&files, &self.line, &self.release);
        tokio::time::timeout(Duration::from_secs(60), fetched).await.expect("an end")
    }

    fn is_here(&self) -> bool {
        self.files().read(&self.release).is_ok_and(|bytes| bytes == self.file)
    }
}

/// Whoever is slower than a few hundred bytes a second over two seconds is slow.
fn mirrors(servers: &[&server::Server]) -> DownloadConfig {
    DownloadConfig {
        insecure_plain_mirrors: servers.iter().map(|server| server.url()).collect(),
        slowest: ByteSize(500),
        slowest_over: HumanDuration(Duration::from_secs(2)),
        ..DownloadConfig::default()
    }
}
