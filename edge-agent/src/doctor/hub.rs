//! Whether the hub can be reached: names, handshakes over every transport, and whether it knows this device.

use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use tributary_identity::tls::{HubProblem, hub_problem};
use tributary_process::checkup::{Finding, millis};
use tributary_process::clock::wall_now;
use tributary_process::http::Client;
use tributary_wire::Micros;

use super::Subject;
use crate::config::host_and_port;
use crate::identity::{Current, date};
use crate::link::{DialError, probe};
use crate::words::in_words;

const SECTION: &str = "Hub";
/// What every device may read, and nobody else.
const ASKED: &str = "/api/v1/repository/metadata/timestamp.json";

type Heard = Option<(Micros, Micros)>;

/// What was found, and the hub's time with this device's when it was heard.
pub(super) async fn check(subject: &Subject) -> (Vec<Finding>, Heard) {
    if subject.options.offline {
        return (vec![Finding::skipped(SECTION, "reach", "--offline: nobody was asked")], None);
    }
    let patience = subject.options.patience;
    if let Some(address) = &subject.config.hub.insecure_plain_mqtt {
        return (vec![judge("mqtt (plain)", address, probe::plain(address, patience).await, false)], None);
    }
    let Ok(Some(identity)) = &subject.identity else {
        return (vec![Finding::skipped(SECTION, "reach", "without a certificate the hub is not called")], None);
    };
    let current = identity.current();
    let mut findings = names(&current, patience).await;
    // One after the other, so that times say something.
    let (asked, heard) = web(&current, identity.web().with_timeout(patience)).await;
    findings.push(asked);
    let mut works = false;
    if let Some(address) = &current.reach.tls {
        let reached = probe::tls(current.mqtt.clone(), address, patience).await;
        works |= reached.is_ok();
        findings.push(judge("tls", address, reached, false));
    }
    if let Some(address) = &current.reach.quic {
        let reached = probe::quic(current.mqtt.clone(), address, patience).await;
        findings.push(judge("quic", address, reached, works));
    }
    (findings, heard)
}

/// Looks the names up, each once.
async fn names(current: &Current, patience: Duration) -> Vec<Finding> {
    let reach = &current.reach;
    let addresses = [Some(&reach.https), reach.tls.as_ref(), reach.quic.as_ref()];
    let mut hosts: Vec<&str> = addresses.into_iter().flatten().filter_map(|it| Some(host_and_port(it)?.0)).collect();
    hosts.dedup();
    let mut findings = Vec::new();
    for host in hosts {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if bare.parse::<std::net::IpAddr>().is_ok() {
            continue;
        }
        let began = Instant::now();
        let found = tokio::time::timeout(patience, tokio::net::lookup_host((bare, 0))).await;
        findings.push(match found {
            Ok(Ok(found)) => {
                let addresses: Vec<String> = found.map(|address| address.ip().to_string()).collect();
                let took = millis(began.elapsed());
                Finding::ok(SECTION, "name", format!("{bare} is {} ({took})", addresses.join(", ")))
            }
            Ok(Err(error)) => Finding::fail(SECTION, "name", format!("{bare} has no address: {error}"))
                .advise("is the name right, and does this machine know a resolver (/etc/resolv.conf)?"),
            Err(_) => Finding::fail(SECTION, "name", format!("no answer about {bare} within {}", millis(patience)))
                .advise("does this machine reach its resolver (/etc/resolv.conf)?"),
        });
    }
    findings
}

/// Asks the web API for something that only its devices get.
async fn web(current: &Current, client: Client) -> (Finding, Heard) {
    let address = &current.reach.https;
    let began = Instant::now();
    let answer = client.send(Method::GET, ASKED, "", bytes::Bytes::new()).await;
    let took = began.elapsed();
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            let finding = Finding::fail(SECTION, "https", format!("{address}: {}", in_words(&error)));
            return (finding.advise(advice(hub_problem(&error))), None);
        }
    };
    let ours = Micros(wall_now() - (took / 2).as_micros() as i64);
    let heard = date(&answer.headers).map(|theirs| (theirs, ours));
    (judge_answer(address, answer.status, answer.accepted().err().map(|error| in_words(&error)), took), heard)
}

fn judge_answer(address: &str, status: StatusCode, refusal: Option<String>, took: Duration) -> Finding {
    let took = millis(took);
    match status {
        status if status.is_success() => Finding::ok(SECTION, "https", format!("{address} knows this device ({took})")),
        StatusCode::NOT_FOUND => {
            Finding::ok(SECTION, "https", format!("{address} knows this device; no signed repository yet ({took})"))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let found = format!("{address} refuses this device: {}", refusal.unwrap_or_default());
            Finding::fail(SECTION, "https", found).advise(
                "at the hub: cloud-hub device show. A revoked or superseded certificate: edge-agent enroll --again",
            )
        }
        _ => {
            let found = format!("{address} answers {}", refusal.unwrap_or_else(|| status.to_string()));
            Finding::fail(SECTION, "https", found).advise("look at the hub: cloud-hub doctor")
        }
    }
}

fn judge(transport: &str, address: &str, reached: Result<Duration, DialError>, other_works: bool) -> Finding {
    let error = match reached {
        Ok(took) => return Finding::ok(SECTION, transport, format!("{address}: handshake in {}", millis(took))),
        Err(error) => error,
    };
    let found = format!("{address}: {}", in_words(&error));
    let problem = error.hub_problem();
    if transport == "quic" && problem.is_none() && other_works {
        return Finding::warn(SECTION, transport, found).advise(
            "UDP does not get through; TLS does, so the agent uses that. Let UDP pass, or set `hub.quic = \"\"`",
        );
    }
    Finding::fail(SECTION, transport, found).advise(advice(problem))
}

fn advice(problem: Option<HubProblem>) -> &'static str {
    match problem {
        Some(HubProblem::Other | HubProblem::Untrusted) => {
            "another hub answers there, or its authority is a new one: check the address; if the hub is right, enrol again"
        }
        Some(HubProblem::Name) => {
            "the hub's certificate is not for this name: add it to `identity.names` there, or call it by another"
        }
        Some(HubProblem::Expired) => {
            "the hub's certificate has expired, or this device's clock runs ahead: look at both"
        }
        Some(HubProblem::Future) => {
            "the hub's certificate is not valid yet, or this device's clock is behind: look at both"
        }
        Some(HubProblem::Refuses) => {
            "the hub refuses this device's certificate: revoked, superseded, or of another authority; enrol again"
        }
        None => "is the hub running, is the address right, and does a firewall let this through?",
    }
}

#[cfg(test)]
mod tests {
    use tributary_process::checkup::Mark;

    use super::*;

    fn silent(transport: &'static str) -> Result<Duration, DialError> {
        Err(DialError::Silent { transport, address: "hub:1".into(), after: Duration::from_secs(5) })
    }

    #[test]
    fn a_transport_that_is_blocked_is_worse_without_another_that_works() {
        let took = Ok(Duration::from_millis(12));
        assert_eq!(judge("quic", "hub:1", took, true).mark(), Mark::Ok);
        assert_eq!(judge("quic", "hub:1", silent("quic"), true).mark(), Mark::Warn);
        assert_eq!(judge("quic", "hub:1", silent("quic"), false).mark(), Mark::Fail);
        assert_eq!(judge("tls", "hub:1", silent("tls"), true).mark(), Mark::Fail);
        let answer = |status| judge_answer("hub:1", status, Some("why".into()), Duration::ZERO).mark();
        let of = [StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::FORBIDDEN, StatusCode::SERVICE_UNAVAILABLE];
        assert_eq!(of.map(answer), [Mark::Ok, Mark::Ok, Mark::Fail, Mark::Fail]);
        for problem in
            [HubProblem::Untrusted, HubProblem::Name, HubProblem::Expired, HubProblem::Future, HubProblem::Refuses]
        {
            assert_ne!(advice(Some(problem)), advice(None));
        }
    }
}
