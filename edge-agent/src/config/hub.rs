//! Where the hub is.

use serde::{Deserialize, Serialize};
use tributary_process::http::Endpoint;

use super::InvalidConfig;

/// Addresses of the hub. After enrolment the agent knows by itself; what is set here is stronger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hub {
    /// Address of its web API, such as `https://hub.example:8443`, for `edge-agent enroll`.
    pub url: String,
    /// `host:port` of its web API.
    pub https: Option<String>,
    /// `host:port` of MQTT over QUIC; empty: not over QUIC.
    pub quic: Option<String>,
    /// `host:port` of MQTT over TLS; empty: not over TLS.
    pub tls: Option<String>,
    /// `host:port` of MQTT without encryption and without proof of who speaks, for development: this machine only.
    pub insecure_plain_mqtt: Option<String>,
    /// Address of the web API without encryption, likewise, such as `http://127.0.0.1:8080`.
    pub insecure_plain_http: Option<String>,
}

impl Hub {
    pub(super) fn check(&self) -> Result<(), InvalidConfig> {
        let on = |value: &&String| !value.is_empty();
        let quic = self.quic.as_ref().filter(on);
        let tls = self.tls.as_ref().filter(on);
        for (key, value) in [("hub.https", self.https.as_ref()), ("hub.quic", quic), ("hub.tls", tls)] {
            if let Some(found) = value.filter(|value| host_and_port(value).is_none()) {
                return Err(InvalidConfig::Authority { key, found: found.clone() });
            }
        }
        if !self.url.is_empty() && !matches!(self.url.parse(), Ok(Endpoint::Tls(_))) {
            return Err(InvalidConfig::NotHttps { found: self.url.clone() });
        }
        if let Some(found) = &self.insecure_plain_mqtt {
            plain_on_loopback("hub.insecure_plain_mqtt", found, Some(found))?;
        }
        if let Some(found) = &self.insecure_plain_http {
            let parsed = found.parse();
            let authority = if let Ok(Endpoint::Tcp(authority)) = &parsed { Some(authority) } else { None };
            plain_on_loopback("hub.insecure_plain_http", found, authority)?;
        }
        Ok(())
    }
}

/// Plain means that anybody on the way may read and change what is said, so there must be no way.
pub(super) fn plain_on_loopback(
    key: &'static str,
    found: &str,
    authority: Option<&String>,
) -> Result<(), InvalidConfig> {
    let refused = || InvalidConfig::PlainNotLoopback { key, found: found.to_owned() };
    let (host, _) = authority.and_then(|authority| host_and_port(authority)).ok_or_else(refused)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let loopback = bare == "localhost" || bare.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    if loopback { Ok(()) } else { Err(refused()) }
}

/// Takes `host:port` apart; an IPv6 address stands in brackets.
pub(crate) fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let sound = !host.is_empty() && (bracketed || !host.contains(':')) && !host.contains('/');
    Some((host, port.parse().ok()?)).filter(|(_, port)| sound && *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn addresses_are_checked_and_plain_ones_stay_on_this_machine() {
        let mut config = Config::default();
        config.hub.insecure_plain_mqtt = Some("hub.example:1883".into());
        assert!(config.check().unwrap_err().to_string().contains("insecure_plain_mqtt"));
        config.hub.insecure_plain_mqtt = Some("[::1]:1883".into());
        config.hub.insecure_plain_http = Some("http://localhost:8080".into());
        (config.hub.quic, config.hub.tls) = (Some("10.0.0.1:14567".into()), Some(String::new()));
        config.check().unwrap();
        for broken in ["hub", "hub:0", "::1:80", "https://hub:1", ":1"] {
            config.hub.quic = Some(broken.into());
            assert!(matches!(config.check(), Err(InvalidConfig::Authority { key: "hub.quic", .. })), "{broken}");
        }
        config.hub = Hub { url: "http://hub".into(), ..Hub::default() };
        assert!(matches!(config.check(), Err(InvalidConfig::NotHttps { .. })));
    }
}
