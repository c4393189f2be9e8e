//! A working hub as its clients see it: whether it answers at the addresses that it wrote down.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cloud_hub_gateway::probe::{self, ProbeError};
use rustls::ClientConfig;
use serde_json::Value;
use tributary_identity::tls::{self, HubProblem};
use tributary_identity::{Certificate, DeviceClock};
use tributary_process::checkup::{Finding, millis};
use tributary_process::http::{Client, Endpoint};
use tributary_wire::Micros;

use super::service::SECTION;
use super::{Subject, words};

const WEB: &str = "web API";
const MQTT_TLS: &str = "MQTT over TLS";
const MQTT_QUIC: &str = "MQTT over QUIC";
/// Said of a certificate of this hub's authority that is for other names: devices call it by these.
const ELSEWHERE: &str = "with a certificate for identity.names, of which this address is none";

/// Asks the hub that works here, at every address that it wrote down.
pub(super) async fn check(subject: &Subject) -> Vec<Finding> {
    let addresses = match written(subject) {
        Ok(addresses) => addresses,
        Err(problem) => {
            let found = format!("where it listens is not known: addresses.json: {problem}");
            let advice = "a hub writes it when it starts: restart it, and look at its log";
            return vec![Finding::fail(SECTION, WEB, found).advise(advice)];
        }
    };
    let mut findings = vec![web(subject, addresses.https).await];
    let patience = subject.options.patience;
    for (name, address) in [(MQTT_TLS, addresses.tls), (MQTT_QUIC, addresses.quic)] {
        let Some(address) = address else { continue };
        let settings = match settings(subject, tls::ALPN_MQTT) {
            Ok(settings) => settings,
            Err(problem) => {
                findings.push(Finding::fail(SECTION, name, problem));
                continue;
            }
        };
        let reached = match name {
            MQTT_QUIC => probe::quic(settings, address, patience).await,
            _ => probe::tls(settings, address, patience).await,
        };
        findings.push(judge(name, address, reached));
    }
    findings
}

/// Where a hub listens, as it wrote down; a door that its settings close is not there.
struct Addresses {
    https: SocketAddr,
    tls: Option<SocketAddr>,
    quic: Option<SocketAddr>,
}

fn written(subject: &Subject) -> Result<Addresses, String> {
    let text = std::fs::read_to_string(subject.path("addresses.json")).map_err(|error| error.to_string())?;
    let addresses: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let address = |of: &str| match &addresses[of] {
        Value::Null => Ok(None),
        Value::String(text) => match text.parse() {
            Ok(address) => Ok(Some(reachable(address))),
            Err(_) => Err(format!("{of} is {text:?}; expected an address and a port")),
        },
        other => Err(format!("{of} is {other}; expected an address and a port")),
    };
    let https = address("https")?.ok_or("it names no https")?;
    Ok(Addresses { https, tls: address("mqtt_tls")?, quic: address("mqtt_quic")? })
}

/// An address to call for one that was bound: `0.0.0.0` is nowhere.
fn reachable(bound: SocketAddr) -> SocketAddr {
    match bound {
        SocketAddr::V4(bound) if bound.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, bound.port()).into(),
        SocketAddr::V6(bound) if bound.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, bound.port()).into(),
        bound => bound,
    }
}

/// What a client believes that trusts this hub's own authority, and shows no certificate.
fn settings(subject: &Subject, alpn: &[u8]) -> Result<Arc<ClientConfig>, String> {
    let own = subject.path("identity").join("authority.pem");
    let path = subject.config.identity.authority.clone().unwrap_or(own);
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let authorities =
        Certificate::all_from_pem(&text).map_err(|error| format!("{}: {}", path.display(), words(&error)))?;
    let clock = Arc::new(DeviceClock::new(Micros(0)));
    tls::device_client(&authorities, None, alpn, clock).map(Arc::new).map_err(|error| words(&error))
}

async fn web(subject: &Subject, address: SocketAddr) -> Finding {
    let client = match settings(subject, tls::ALPN_HTTP) {
        Ok(settings) => Client::new(Endpoint::Tls(address.to_string())).with_tls(settings),
        Err(problem) => return Finding::fail(SECTION, WEB, problem),
    };
    match client.with_timeout(subject.options.patience).get::<Value>("/api/v1/ready").await {
        Ok(answer) => {
            let version = answer["version"].as_str().unwrap_or("unknown").to_owned();
            let own = env!("CARGO_PKG_VERSION");
            if version == own {
                Finding::ok(SECTION, WEB, format!("https://{address} answers; version {version}"))
            } else {
                let found = format!("https://{address} runs version {version}, this doctor has {own}");
                Finding::warn(SECTION, WEB, found).advise("restart the hub, or use its own doctor")
            }
        }
        Err(error) if tls::hub_problem(&error) == Some(HubProblem::Name) => {
            Finding::ok(SECTION, WEB, format!("https://{address} answers, {ELSEWHERE}"))
        }
        Err(error) => Finding::fail(SECTION, WEB, format!("https://{address}: {}", words(&error)))
            .advise("a hub holds the folder but does not answer: its log says more; restart it"),
    }
}

fn judge(name: &'static str, address: SocketAddr, reached: Result<Duration, ProbeError>) -> Finding {
    let error = match reached {
        Ok(took) => return Finding::ok(SECTION, name, format!("{address}: handshake in {}", millis(took))),
        Err(error) => error,
    };
    let problem = error.hub_problem();
    match problem {
        Some(HubProblem::Refuses) => {
            return Finding::ok(SECTION, name, format!("{address} answers, and lets nobody in without a certificate"));
        }
        Some(HubProblem::Name) => return Finding::ok(SECTION, name, format!("{address} answers, {ELSEWHERE}")),
        _ => {}
    }
    Finding::fail(SECTION, name, format!("{address}: {}", words(&error))).advise(advice(name, problem))
}

fn advice(name: &str, problem: Option<HubProblem>) -> &'static str {
    match problem {
        Some(HubProblem::Expired | HubProblem::Future) => {
            "look at the hub's certificate (Identity, below) and at the clock; a restart takes up a new certificate"
        }
        Some(_) => {
            "the certificate is not of this hub's authority: another program answers there (ss -lntup), or the authority \
             was replaced and the hub not restarted"
        }
        None if name == MQTT_QUIC => {
            "does a firewall on this machine drop UDP? Devices use TLS meanwhile; else restart the hub, and look at its log"
        }
        None => "the hub's log says more; restart it",
    }
}

#[cfg(test)]
mod tests {
    use tributary_process::checkup::Mark;

    use super::*;

    #[test]
    fn a_door_is_judged_by_who_answers() {
        let address = "127.0.0.1:8883".parse().unwrap();
        assert_eq!(judge(MQTT_TLS, address, Ok(Duration::from_millis(3))).mark(), Mark::Ok);
        let silent = judge(MQTT_QUIC, address, Err(ProbeError::Silent(Duration::from_secs(5))));
        assert_eq!(silent.mark(), Mark::Fail);
        assert!(
            silent.found().contains("no answer within 5s") && silent.advice().unwrap().contains("UDP"),
            "{silent:?}"
        );
        let said = |alert| {
            let error = rustls::Error::AlertReceived(alert);
            judge(MQTT_TLS, address, Err(ProbeError::Tls(std::io::Error::other(error)))).mark()
        };
        assert_eq!(said(rustls::AlertDescription::CertificateRequired), Mark::Ok, "it answers");
        assert_eq!(said(rustls::AlertDescription::InternalError), Mark::Fail);
        let named = rustls::Error::InvalidCertificate(rustls::CertificateError::NotValidForName);
        let elsewhere = judge(MQTT_TLS, address, Err(ProbeError::Tls(std::io::Error::other(named))));
        assert!(elsewhere.mark() == Mark::Ok && elsewhere.found().contains("identity.names"), "{elsewhere:?}");
        let problems = [HubProblem::Expired, HubProblem::Untrusted];
        assert!(problems.into_iter().all(|problem| advice(MQTT_TLS, Some(problem)) != advice(MQTT_TLS, None)));
    }

    #[test]
    fn nowhere_is_called_as_this_machine() {
        let called = |bound: &str| reachable(bound.parse().unwrap()).to_string();
        assert_eq!(
            ["0.0.0.0:8443", "[::]:8443", "10.0.0.1:8443"].map(called),
            ["127.0.0.1:8443", "[::1]:8443", "10.0.0.1:8443"]
        );
    }
}
