//! How files are fetched, as set.

use std::path::PathBuf;
use std::time::Duration;

use edge_agent_core::download::{Hours, HoursError};
use serde::{Deserialize, Serialize};
use tributary_process::config::{ByteSize, HumanDuration};

/// How metadata and packages are fetched.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DownloadConfig {
    /// Whether files come beside MQTT while that goes over QUIC.
    pub quic: bool,
    /// `host:port` of the web API of further hubs that serve the same repository to this device, in the order in which
    /// they are asked when the first one fails. Only an enrolled device can ask them.
    pub hubs: Vec<String>,
    /// Addresses of web servers with a copy of the repository, such as `https://mirror.example/repository`. They are asked
    /// last, and believed in nothing: what they give is checked like everything else.
    pub mirrors: Vec<String>,
    /// File of the authorities that mirrors' certificates come from; without it the hub's.
    pub mirror_authorities: Option<PathBuf>,
    /// Mirrors without encryption, for development: this machine only.
    pub insecure_plain_mirrors: Vec<String>,
    /// Longest wait for an answer, and then for each piece.
    pub patience: HumanDuration,
    /// Longest time for one file of metadata.
    pub metadata_patience: HumanDuration,
    /// A source slower than this many bytes a second, averaged over `slowest_over` of waiting, is left for the next.
    pub slowest: ByteSize,
    /// The length of that average.
    pub slowest_over: HumanDuration,
    /// How long a source that failed goes behind the others; longer after each failure.
    pub rest: HumanDuration,
    /// The longest that it does.
    pub rest_cap: HumanDuration,
    /// How much may be fetched, and when.
    pub budget: Budget,
}

/// How much may be fetched, and when. Metadata is exempt: it is small, and freshness depends on it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Bytes a second for all packages together; 0: as fast as it goes.
    pub bytes_per_second: ByteSize,
    /// Times of day for packages, such as `["22:00-06:00"]`; none: always.
    pub hours: Vec<String>,
    /// The time zone of these times, such as `Europe/Paris`.
    pub time_zone: String,
}

impl Default for DownloadConfig {
    fn default() -> Self {
        Self {
            quic: true,
            hubs: Vec::new(),
            mirrors: Vec::new(),
            mirror_authorities: None,
            insecure_plain_mirrors: Vec::new(),
            patience: HumanDuration(Duration::from_secs(30)),
            metadata_patience: HumanDuration(Duration::from_secs(60)),
            slowest: ByteSize(1 << 10),
            slowest_over: HumanDuration(Duration::from_secs(60)),
            rest: HumanDuration(Duration::from_secs(30)),
            rest_cap: HumanDuration(Duration::from_secs(3600)),
            budget: Budget::default(),
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes_per_second: ByteSize(0), hours: Vec::new(), time_zone: "UTC".into() }
    }
}

impl Budget {
    /// The times of day, if they are such.
    pub fn hours(&self) -> Result<Hours, HoursError> {
        Hours::new(&self.hours, &self.time_zone)
    }
}
