//! All settings of the agent. Defaults stand here, beside what they mean; an unknown key is an error.

mod download;
mod endpoint;
mod hub;
mod sampling;
mod state;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tributary_process::config::{ByteSize, HumanDuration};
use tributary_process::logging::LogConfig;
use tributary_wire::{DeviceId, LineName};

pub use hub::Hub;
pub(crate) use hub::host_and_port;
pub use sampling::Sampling;
pub use state::{Outbox, State};

use crate::download::DownloadConfig;
use crate::link::LinkConfig;
use crate::orders::OrdersConfig;
use crate::sources::{ReplayConfig, SerialConfig, TimeDomain, TimeRules};
use crate::update::UpdateConfig;

/// Settings of one agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Id of this device. Once it is enrolled, the name in its certificate counts.
    pub device: DeviceId,
    /// Folder for everything that must survive.
    pub state_dir: PathBuf,
    /// The model line that decides here: exactly one, because an agent keeps the windows of one feature view. Its primary
    /// package answers, other roles are scored beside it. Another line on the same machine is another agent, with a
    /// `device` name, a `state_dir`, a `listen` and an enrolment of its own.
    pub lines: Vec<LineName>,
    /// File of the feature view that is used until the first package brings its own.
    pub view: Option<PathBuf>,
    /// `site = "lyon"` and the like, for the hub's selectors.
    pub labels: BTreeMap<String, String>,
    /// Where the local API listens.
    pub listen: Listen,
    /// Where the hub is.
    pub hub: Hub,
    /// Whom to believe.
    pub trust: Trust,
    /// Where events come from.
    pub sources: Sources,
    /// What is answered when no package can.
    pub fallback: Fallback,
    /// How much is taken at once.
    pub limits: Limits,
    /// How state is kept.
    pub state: State,
    /// How records are grouped and kept for the hub.
    pub outbox: Outbox,
    /// What is sent of raw observations.
    pub sampling: Sampling,
    /// How the connection to the hub is kept.
    pub link: LinkConfig,
    /// How metadata and packages are fetched.
    pub download: DownloadConfig,
    /// How packages are changed.
    pub update: UpdateConfig,
    /// Which commands of the hub are carried out.
    pub commands: OrdersConfig,
    /// Width of the event-time windows that sketches cover.
    pub sketch_window: HumanDuration,
    /// Answers kept by features; 0 turns the prediction cache off.
    pub prediction_cache: usize,
    /// What is logged, and how.
    pub log: LogConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            device: DeviceId::new("device").expect("a valid id"),
            state_dir: "edge-agent-state".into(),
            lines: vec![LineName::new("card-fraud").expect("a valid name")],
            view: None,
            labels: BTreeMap::new(),
            listen: Listen::default(),
            hub: Hub::default(),
            trust: Trust::default(),
            sources: Sources::default(),
            fallback: Fallback::default(),
            limits: Limits::default(),
            state: State::default(),
            outbox: Outbox::default(),
            sampling: Sampling::default(),
            link: LinkConfig::default(),
            download: DownloadConfig::default(),
            update: UpdateConfig::default(),
            commands: OrdersConfig::default(),
            sketch_window: HumanDuration(Duration::from_secs(86_400)),
            prediction_cache: 1024,
            log: LogConfig::default(),
        }
    }
}

/// Half of the largest body on the wire: sizes are estimates until a batch is closed.
const MAX_BATCH_BYTES: u64 = (tributary_wire::MAX_BODY_BYTES / 2) as u64;

/// Settings that contradict each other.
#[derive(Debug, thiserror::Error)]
pub enum InvalidConfig {
    /// Not exactly one model line.
    #[error(
        "`lines` names {found} model lines; an agent serves exactly one: for each further line run another agent on this \
         machine, with settings, a `device` name, a `state_dir` and an enrolment of its own"
    )]
    Lines {
        /// How many were named.
        found: usize,
    },
    /// Nowhere to listen.
    #[error("`listen` has neither `unix` nor `tcp`")]
    NoListener,
    /// TCP is open to other machines.
    #[error("`listen.tcp` is {found}; the local API has no authentication, so only a loopback address is allowed")]
    NotLoopback {
        /// The address.
        found: SocketAddr,
    },
    /// Batches that a hub would refuse.
    #[error("`outbox.batch_bytes` is {found}; at most {limit} fit into what a hub takes")]
    BatchBytes {
        /// The setting.
        found: ByteSize,
        /// The limit.
        limit: ByteSize,
    },
    /// Not an address.
    #[error("`{key}` is {found:?}, expected host:port")]
    Authority {
        /// Which setting.
        key: &'static str,
        /// As set.
        found: String,
    },
    /// Enrolment needs HTTPS.
    #[error("`hub.url` is {found:?}, expected an address such as https://hub.example:8443")]
    NotHttps {
        /// As set.
        found: String,
    },
    /// Plain to another machine.
    #[error("`{key}` is {found:?}; without encryption only an address of this machine is allowed, with its port")]
    PlainNotLoopback {
        /// Which setting.
        key: &'static str,
        /// As set.
        found: String,
    },
    /// A line whose node has no name, or one that another line has too.
    #[error("`sources.serial`: node {found:?} on {port} {problem}")]
    Node {
        /// The name.
        found: String,
        /// Its line.
        port: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Hours or a time zone that are none.
    #[error("`download.budget`: {0}")]
    Hours(#[from] edge_agent_core::download::HoursError),
    /// Not an address.
    #[error("`{key}` has {found:?}, expected an address such as https://mirror.example/repository")]
    Mirror {
        /// Which setting.
        key: &'static str,
        /// As set.
        found: String,
    },
    /// A sampling policy that is none; shares are told in parts per million.
    #[error("`sampling`: {0}")]
    Sampling(String),
    /// A number that would stop all work.
    #[error("`{key}` is 0; at least 1 is needed")]
    Zero {
        /// Which setting.
        key: &'static str,
    },
}

impl Config {
    /// Checks what types cannot.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        if self.lines.len() != 1 {
            return Err(InvalidConfig::Lines { found: self.lines.len() });
        }
        if self.listen.unix.is_none() && self.listen.tcp.is_none() {
            return Err(InvalidConfig::NoListener);
        }
        if let Some(found) = self.listen.tcp.filter(|address| !address.ip().is_loopback()) {
            return Err(InvalidConfig::NotLoopback { found });
        }
        self.hub.check()?;
        download::check(&self.download)?;
        let counts = [
            ("limits.events_per_request", self.limits.events_per_request),
            ("limits.queue_events", self.limits.queue_events),
            ("outbox.batch_rows", self.outbox.batch_rows),
            ("link.quic_timeout", self.link.quic_timeout.0.as_millis() as usize),
            ("link.quic_idle", self.link.quic_idle.0.as_millis() as usize),
            ("link.probe", self.link.probe.0.as_millis() as usize),
            ("download.patience", self.download.patience.0.as_millis() as usize),
            ("download.metadata_patience", self.download.metadata_patience.0.as_millis() as usize),
            ("download.slowest_over", self.download.slowest_over.0.as_millis() as usize),
            ("sketch_window", self.sketch_window.0.as_micros() as usize),
        ];
        self.check_nodes()?;
        self.sampling.policy().check().map_err(|error| InvalidConfig::Sampling(error.to_string()))?;
        let found = self.outbox.batch_bytes;
        if found.0 > MAX_BATCH_BYTES {
            return Err(InvalidConfig::BatchBytes { found, limit: ByteSize(MAX_BATCH_BYTES) });
        }
        match counts.into_iter().find(|(_, count)| *count == 0) {
            Some((key, _)) => Err(InvalidConfig::Zero { key }),
            None => Ok(()),
        }
    }

    fn check_nodes(&self) -> Result<(), InvalidConfig> {
        let mut nodes = std::collections::BTreeSet::new();
        let mut ports = std::collections::BTreeSet::new();
        let replay = self.sources.replay.as_ref().map(|replay| replay.name.as_str());
        for serial in &self.sources.serial {
            let port = serial.port.to_string();
            let problem = if !serial.names_a_node() {
                "has no name of [a-z0-9-]{1,63}"
            } else if serial.node == crate::sources::API || replay == Some(&serial.node) {
                "is called as another source"
            } else if !nodes.insert(&serial.node) {
                "is named twice"
            } else if !ports.insert(port.clone()) {
                "shares its line with another node"
            } else {
                continue;
            };
            return Err(InvalidConfig::Node { found: serial.node.clone(), port, problem });
        }
        Ok(())
    }

    /// The model line whose primary package decides.
    pub fn line(&self) -> &LineName {
        &self.lines[0]
    }
}

/// Where the local API listens.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// Path of a Unix socket; relative paths are taken from the state folder.
    pub unix: Option<PathBuf>,
    /// A loopback address; port 0 takes a free one.
    pub tcp: Option<SocketAddr>,
}

impl Default for Listen {
    fn default() -> Self {
        Self { unix: Some("agent.sock".into()), tcp: None }
    }
}

/// Whom to believe.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trust {
    /// File of the signed repository's root (`root.json`), instead of the one that enrolment brought. Without either
    /// nothing is ever installed.
    pub root: Option<PathBuf>,
}

/// Where events come from.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sources {
    /// Time rules of events that come over the local API.
    pub api: TimeRules,
    /// A file to play.
    pub replay: Option<ReplayConfig>,
    /// Lines with sensor nodes.
    pub serial: Vec<SerialConfig>,
}

impl Default for Sources {
    fn default() -> Self {
        Self { api: TimeRules { time: TimeDomain::Live, ..TimeRules::default() }, replay: None, serial: Vec::new() }
    }
}

/// What is answered when no package can.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fallback {
    /// The output.
    pub output: f32,
    /// The decision.
    pub decision: bool,
}

impl Default for Fallback {
    fn default() -> Self {
        Self { output: 0.0, decision: false }
    }
}

/// How much is taken at once.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest body of a request.
    pub body: ByteSize,
    /// Most events in one request.
    pub events_per_request: usize,
    /// Most events that wait for the writer; one more is answered 429.
    pub queue_events: usize,
    /// Memory that serving one package may take; one that needs more is not downloaded. Unset: what the machine has.
    pub package_memory: Option<ByteSize>,
}

impl Default for Limits {
    fn default() -> Self {
        // 4096 events wait at most a few hundred milliseconds, also in a debug build.
        Self { body: ByteSize(4 << 20), events_per_request: 1000, queue_events: 4096, package_memory: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_consistent_and_print_as_toml_that_reads_back() {
        let config = Config::default();
        config.check().unwrap();
        let text = toml::to_string(&config).unwrap();
        let again: Config = toml::from_str(&text).unwrap();
        assert_eq!(toml::to_string(&again).unwrap(), text);
    }

    #[test]
    fn contradictions_are_named() {
        let mut config = Config::default();
        config.listen.tcp = Some("0.0.0.0:80".parse().unwrap());
        assert!(config.check().unwrap_err().to_string().contains("0.0.0.0:80"));
        config.lines.push(LineName::new("returns").unwrap());
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains("names 2 model lines") && error.contains("another agent"), "{error}");
        config.lines.pop();
        config.listen = Listen { unix: None, tcp: None };
        assert!(matches!(config.check(), Err(InvalidConfig::NoListener)));
        let serial = |port: &str, node: &str| SerialConfig {
            port: port.parse().unwrap(),
            node: node.into(),
            ..SerialConfig::default()
        };
        for (first, second, problem) in [
            (serial("/dev/a", "Pump"), serial("/dev/b", "x"), "has no name"),
            (serial("/dev/a", "x"), serial("/dev/b", "x"), "named twice"),
            (serial("/dev/a", "x"), serial("/dev/a", "y"), "shares its line"),
            (serial("/dev/a", "api"), serial("/dev/b", "y"), "as another source"),
        ] {
            let mut config = Config::default();
            config.sources.serial = vec![first, second];
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
        assert!(toml::from_str::<Config>("devise = 1").unwrap_err().to_string().contains("devise"));
    }
}
