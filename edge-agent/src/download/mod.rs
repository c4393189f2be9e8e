//! Files of the repository, from whichever origin gives them: streams beside MQTT, hubs' web APIs, mirrors.
//!
//! [`Origins::small`] reads metadata into memory. [`Origins::fill`] brings any file onto disk: it goes on where the file
//! ends, also after a restart; it moves on to the next origin when one breaks off, trickles or gives too much, and keeps to
//! the budget. Nobody is believed: what came is checked by whoever asked for it, and [`Origins::lied`] tells when it was
//! wrong. [`Origins::package`] does that for packages.

mod budget;
mod config;
mod error;
mod fill;
mod origin;
mod package;
mod patch;
mod small;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use edge_agent_core::download::{Fault, Hours, Ranking};
use tokio::sync::Semaphore;
use tributary_process::clock::Clock;
use tributary_wire::ReleaseRef;

use budget::Purse;
pub use config::{Budget, DownloadConfig};
pub use error::{DownloadError, OriginError};
pub use fill::{Sink, Wanted};
use origin::Origin;
pub use origin::{MirrorError, address as mirror_address};
pub use status::{Arrival, DownloadStatus, DownloadView, Progress};

use crate::identity::{Time, Web};
use crate::link::FileStreams;
use crate::metrics::DownloadMetrics;
use crate::words::in_words;

/// Files at once. More would only share the same link, and over QUIC each may hold back some of the connection's window.
const AT_ONCE: usize = 2;

/// Where files come from; cheap to clone.
#[derive(Clone)]
pub struct Origins(Arc<Shared>);

struct Shared {
    config: DownloadConfig,
    origins: Vec<Origin>,
    ranking: Mutex<Ranking>,
    purse: Purse,
    at_once: Semaphore,
    status: DownloadStatus,
    metrics: DownloadMetrics,
    tried: patch::Tried,
    clock: Arc<dyn Clock>,
}

/// Who gave the bytes of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Givers(BTreeSet<usize>);

/// What origins work with.
pub struct Parts {
    /// Settings.
    pub config: DownloadConfig,
    /// The hub.
    pub web: Web,
    /// The connection that carries MQTT.
    pub streams: FileStreams,
    /// The time that certificates are judged by.
    pub time: Time,
    /// The device's clock.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: DownloadMetrics,
    /// Chance.
    pub seed: u64,
}

impl fmt::Debug for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.origins.iter().map(Origin::name)).finish()
    }
}

impl Origins {
    /// From settings; the hours are those of the settings' budget.
    pub fn new(parts: Parts, hours: Hours) -> Result<Self, MirrorError> {
        let Parts { config, web, streams, time, clock, metrics, seed } = parts;
        let origins = Origin::all(&config, &web, streams, &time)?;
        let status = DownloadStatus::default();
        for hub in origin::unusable(&config, &web) {
            tracing::warn!(hub, "a hub of `download.hubs` is not asked: {}", origin::NOT_ENROLLED);
            status.failed(format!("https://{hub}"), format!("it is not asked: {}", origin::NOT_ENROLLED));
        }
        let ranking = Ranking::new(origins.len(), config.rest.0, config.rest_cap.0, seed);
        Ok(Self(Arc::new(Shared {
            ranking: Mutex::new(ranking),
            purse: Purse::new(hours, config.budget.bytes_per_second.0, time.over(clock.clone())),
            at_once: Semaphore::new(AT_ONCE),
            status,
            config,
            origins,
            metrics,
            tried: patch::Tried::default(),
            clock,
        })))
    }

    /// What is under way.
    pub fn status(&self) -> DownloadStatus {
        self.0.status.clone()
    }

    /// A file was not what it should be: whoever gave a part of it is asked last from now on.
    pub fn lied(&self, givers: &Givers) {
        let now = self.now();
        for origin in &givers.0 {
            let name = self.0.origins[*origin].name();
            tracing::warn!(origin = %name, "it gave bytes that are not those released");
            self.0.status.failed(name, "it gave bytes that are not those released".into());
            self.0.metrics.failed(self.0.origins[*origin].kind());
            self.ranking().failed(*origin, now, Fault::Lied);
        }
    }

    /// A package is in its place.
    fn arrived(&self, release: &ReleaseRef, way: &'static str, bytes: u64, givers: &Givers) {
        let from = givers.0.iter().map(|origin| self.0.origins[*origin].name()).collect();
        let (version, sha256, of) = (release.version, release.sha256, release.length);
        tracing::info!(version = version.0, %sha256, way, bytes, of, ?from, "a package came");
        self.0.status.arrived(Arrival { version, sha256, way, bytes, of, from });
    }

    fn worked(&self, origin: usize) {
        self.0.status.worked(&self.0.origins[origin].name());
        self.ranking().worked(origin);
    }

    fn failed(&self, origin: usize, path: &str, error: &OriginError) {
        let (name, words) = (self.0.origins[origin].name(), in_words(error));
        tracing::warn!(origin = %name, path, error = %words, "a file did not come");
        self.0.status.failed(name, words);
        self.0.metrics.failed(self.0.origins[origin].kind());
        self.ranking().failed(origin, self.now(), error.fault());
    }

    /// Whom to ask, in order.
    fn order(&self) -> Vec<usize> {
        let order = self.ranking().order(self.now());
        order.into_iter().filter(|origin| self.0.origins[*origin].is_there()).collect()
    }

    fn ranking(&self) -> MutexGuard<'_, Ranking> {
        self.0.ranking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        Duration::from_micros(self.0.clock.monotonic())
    }
}
