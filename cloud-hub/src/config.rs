//! Settings of the hub. Each part owns its section; this file only puts them together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use cloud_hub_gateway::{AddressLimits, FileLimits, Limits, Listeners};
use serde::{Deserialize, Serialize};
use tributary_process::config::{ByteSize, HumanDuration};
use tributary_process::logging::LogConfig;

/// All settings. Unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where everything durable lies: `catalog.db`, `lake/`, `quarantine/`, and what other parts keep.
    pub data_dir: PathBuf,
    /// Who the hub is to its devices, and how long it vouches for them.
    pub identity: crate::identity::IdentityConfig,
    /// How devices connect.
    pub gateway: GatewayConfig,
    /// How records become durable.
    pub ingest: IngestConfig,
    /// Where the web API listens, and its limits.
    pub api: crate::api::ApiConfig,
    /// How long sessions last, and how often somebody may be wrong.
    pub access: crate::access::AccessConfig,
    /// How training runs are carried out.
    pub training: crate::training::TrainingConfig,
    /// How fleet-scope features reach devices.
    pub materialize: crate::materialize::Config,
    /// How often the monitor looks.
    pub monitor: crate::monitor::Config,
    /// How long what the hub signs for the repository is good for.
    pub publish: crate::publish::Config,
    /// What patches to packages may cost.
    pub patches: crate::patches::Config,
    /// How often rollouts are looked at.
    pub rollout: crate::rollout::Config,
    /// Backups, and what a restored hub waits for.
    pub backup: crate::backup::Config,
    /// What may be asked of devices.
    pub commands: crate::orders::Config,
    /// What is logged.
    pub log: LogConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: "hub-data".into(),
            identity: crate::identity::IdentityConfig::default(),
            gateway: GatewayConfig::default(),
            ingest: IngestConfig::default(),
            api: crate::api::ApiConfig::default(),
            access: crate::access::AccessConfig::default(),
            training: crate::training::TrainingConfig::default(),
            materialize: crate::materialize::Config::default(),
            monitor: crate::monitor::Config::default(),
            publish: crate::publish::Config::default(),
            patches: crate::patches::Config::default(),
            rollout: crate::rollout::Config::default(),
            backup: crate::backup::Config::default(),
            commands: crate::orders::Config::default(),
            // The router says every subscription at info.
            log: LogConfig { filter: "info,rumqttd=warn".into(), ..LogConfig::default() },
        }
    }
}

/// How devices connect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// Address for MQTT over TLS, or "off"; port 0 picks a free one.
    #[serde(with = "address_or_off")]
    pub tls: Option<SocketAddr>,
    /// Address for MQTT over QUIC (UDP), or "off".
    #[serde(with = "address_or_off")]
    pub quic: Option<SocketAddr>,
    /// Address for plain MQTT, or "off": no encryption, no proof of who connects. Any address but loopback is refused.
    #[serde(with = "address_or_off")]
    pub insecure_plain_on_loopback: Option<SocketAddr>,
    /// Connections at once.
    pub connections: usize,
    /// Connections that have not been let in yet, beside the others; beyond this the oldest of them goes.
    pub half_open: usize,
    /// Connections at once from one address. Whole sites and mobile networks stand behind one.
    pub connections_per_address: usize,
    /// Connections from one address that have not been let in yet; beyond this the oldest of them goes.
    pub half_open_per_address: usize,
    /// New connections per second from one address; more are refused.
    pub new_per_second_per_address: u32,
    /// Time for a connection to say who it is.
    pub handshake: HumanDuration,
    /// Time for a peer to take what is written to it.
    pub write_timeout: HumanDuration,
    /// Messages that a device may send per second; faster ones wait.
    pub messages_per_second: u32,
    /// Bytes that a device may send per second; faster ones wait.
    pub bytes_per_second: ByteSize,
    /// Messages that a device may have sent and not yet seen acknowledged.
    pub receive_maximum: u16,
    /// Memory for messages that ingest has not taken yet, over all devices.
    pub queue_bytes: ByteSize,
    /// Files that a device may fetch at once over its QUIC connection, beside its messages.
    pub files_at_once: u8,
    /// Bytes of files per second for one device over its QUIC connection.
    pub file_bytes_per_second: ByteSize,
    /// A device that takes nothing of such a file for this long loses its stream; it goes on from there later.
    pub file_stall: HumanDuration,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            tls: Some(SocketAddr::from(([127, 0, 0, 1], 8883))),
            quic: Some(SocketAddr::from(([127, 0, 0, 1], 14567))),
            insecure_plain_on_loopback: None,
            connections: limits.connections,
            half_open: limits.half_open,
            connections_per_address: limits.per_address.connections,
            half_open_per_address: limits.per_address.half_open,
            new_per_second_per_address: limits.per_address.per_second,
            handshake: HumanDuration(limits.handshake),
            write_timeout: HumanDuration(limits.write_timeout),
            messages_per_second: limits.messages_per_second,
            bytes_per_second: ByteSize(limits.bytes_per_second),
            receive_maximum: limits.receive_maximum,
            queue_bytes: ByteSize(limits.queue_bytes as u64),
            files_at_once: limits.files.at_once,
            file_bytes_per_second: ByteSize(limits.files.bytes_per_second),
            file_stall: HumanDuration(limits.files.stall),
        }
    }
}

impl GatewayConfig {
    /// Where the gateway listens.
    pub fn listeners(&self) -> Listeners {
        Listeners { quic: self.quic, tls: self.tls, insecure_plain_on_loopback: self.insecure_plain_on_loopback }
    }

    /// The gateway's form of it.
    pub fn limits(&self) -> Limits {
        Limits {
            connections: self.connections,
            half_open: self.half_open,
            per_address: AddressLimits {
                connections: self.connections_per_address,
                half_open: self.half_open_per_address,
                per_second: self.new_per_second_per_address,
            },
            handshake: self.handshake.0,
            write_timeout: self.write_timeout.0,
            messages_per_second: self.messages_per_second,
            bytes_per_second: self.bytes_per_second.0,
            receive_maximum: self.receive_maximum,
            queue_bytes: self.queue_bytes.0 as usize,
            files: FileLimits {
                at_once: self.files_at_once,
                bytes_per_second: self.file_bytes_per_second.0,
                stall: self.file_stall.0,
            },
            ..Limits::default()
        }
    }
}

/// TOML has no word for what is absent, and leaving a line out means the default.
mod address_or_off {
    use std::net::SocketAddr;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(address: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
        match address {
            Some(address) => serializer.collect_str(address),
            None => serializer.serialize_str("off"),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "off" {
            return Ok(None);
        }
        let wrong =
            |_| serde::de::Error::custom(format!("{text:?} is neither an address such as 0.0.0.0:8883 nor \"off\""));
        text.parse().map(Some).map_err(wrong)
    }
}

/// How records become durable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IngestConfig {
    /// A group of batches is committed when it has this many bytes,
    pub group_bytes: ByteSize,
    /// or when its first batch has waited this long,
    pub group_age: HumanDuration,
    /// or when nothing came for this long.
    pub group_idle: HumanDuration,
    /// The most batches of a stream that a device may have in flight; under load it is told fewer, down to none.
    pub window: u16,
    /// How long a batch may wait at the hub before devices are slowed down; shorter than the time after which they send
    /// again.
    pub patience: HumanDuration,
    /// Free disk that records do not get, so that the hub's catalog can still be written: with less, devices hold.
    pub disk_reserve: ByteSize,
    /// How long to wait before trying again when the disk refused.
    pub retry: HumanDuration,
    /// What one device may have in quarantine; beyond it, its bad batches are refused and not acknowledged.
    pub quarantine_bytes: ByteSize,
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self {
            group_bytes: ByteSize(4 << 20),
            group_age: HumanDuration(Duration::from_secs(1)),
            group_idle: HumanDuration(Duration::from_millis(50)),
            window: 64,
            patience: HumanDuration(Duration::from_secs(2)),
            disk_reserve: ByteSize(64 << 20),
            retry: HumanDuration(Duration::from_secs(1)),
            quarantine_bytes: ByteSize(64 << 20),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_an_address_or_off() {
        let read = |text: &str| toml::from_str::<GatewayConfig>(text).map_err(|error| error.to_string());
        let config = read("quic = \"off\"\ntls = \"0.0.0.0:8883\"").unwrap();
        assert_eq!((config.quic, config.tls), (None, Some("0.0.0.0:8883".parse().unwrap())));
        assert_eq!(read(&toml::to_string(&config).unwrap()).unwrap(), config);
        assert_eq!(read("").unwrap().quic.unwrap().port(), 14567);
        assert!(read("tls = \"8883\"").unwrap_err().contains("nor \"off\""));
    }
}
