//! What has to happen by itself: the hub's certificate is renewed, people are warned before one runs out, and
//! connections end with the certificate that they were made with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::json;
use tributary_identity::Certificate;
use tributary_process::shutdown::Shutdown;
use tributary_wire::Micros;

use super::Identity;
use super::decide::{Grant, Refusal};
use crate::catalog::alerts;
use crate::hub::Hub;

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(20);
/// Every device needs to learn of another authority before this one ends; that takes months.
const AUTHORITY_WARNING: i64 = 180 * Micros::DAY;

/// Looks after certificates until the hub stops.
pub(crate) async fn run(hub: Arc<Hub>, stop: Shutdown) -> anyhow::Result<()> {
    loop {
        tend(&hub, hub.now()).await;
        tokio::select! {
            () = stop.given() => return Ok(()),
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

async fn tend(hub: &Hub, now: Micros) {
    let identity = &hub.identity;
    if let Err(error) = identity.own.tend(&identity.authority, now) {
        tracing::error!(error = format!("{error:#}"), "the hub could not renew its certificate");
    }
    for device in hub.connections.connected() {
        if let Some(refused) = identity.outlived(&device, now) {
            tracing::warn!(device_id = %device, %refused, "a connection ends with its certificate");
            hub.connections.close(&device, &refused.to_string());
        }
    }
    identity.known.forget(now, identity.config.grace.0);
    let own = identity.own_certificate();
    // It is renewed with a third of its life left: with a sixth left, renewing has failed for long.
    let sixth = own.not_after().0.saturating_sub(own.not_before().0) / 6;
    for (kind, certificate, warning) in [
        ("authority-expires", identity.authority.certificate(), AUTHORITY_WARNING),
        ("hub-certificate-expires", &own, sixth),
    ] {
        let soon = certificate.not_after().0.saturating_sub(now.0) < warning;
        if let Err(error) = warn(hub, kind, certificate, soon, now).await {
            tracing::error!(kind, error = &error as &dyn std::error::Error, "an alert was not stored");
        }
    }
}

async fn warn(hub: &Hub, kind: &str, certificate: &Certificate, soon: bool, now: Micros) -> Result<(), sqlx::Error> {
    let subject = certificate.common_name();
    let query = "select count(*) from alerts where kind = $1 and subject = $2 and state <> 'resolved'";
    let open: i64 = sqlx::query_scalar(query).bind(kind).bind(subject).fetch_one(hub.catalog.reader()).await?;
    if soon == (open > 0) {
        return Ok(());
    }
    let mut transaction = hub.catalog.write().await?;
    if soon {
        let until = certificate.not_after();
        tracing::error!(kind, subject, %until, "a certificate runs out");
        let detail = json!({ "problem": "the certificate runs out", "until": until.to_string() });
        alerts::raise(&mut transaction, alerts::Raise { kind, subject, severity: "critical", detail }, now).await?;
    } else {
        alerts::resolve(&mut transaction, kind, subject, now).await?;
    }
    transaction.commit().await
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: String,
}

/// Adds what is counted here to the hub's metrics.
pub(crate) fn metrics(registry: &mut Registry, identity: &Identity) {
    let mut family = |name: &str, help: &str, counts: BTreeMap<&'static str, u64>, always: &[&'static str]| {
        let family: Family<Outcome, Counter<u64, AtomicU64>> = Family::default();
        for (outcome, count) in always.iter().map(|name| (*name, 0)).chain(counts) {
            family.get_or_create(&Outcome { outcome: outcome.to_owned() }).inc_by(count);
        }
        registry.register(name, help, family);
    };
    let enrolments: Vec<&str> = Grant::NAMES.into_iter().chain(Refusal::NAMES).collect();
    family("enrolments", "Devices that asked for a first certificate", identity.tally.enrolments(), &enrolments);
    family("renewals", "Devices that asked for their next certificate", identity.tally.renewals(), &["renewed"]);
    family("admissions", "Connections to the gateway that said who they are", identity.tally.admissions(), &[]);
    let mut until = |name: &str, help: &str, certificate: &Certificate| {
        let gauge: Gauge = Gauge::default();
        gauge.set(certificate.not_after().0 / Micros::SECOND);
        registry.register(name, help, gauge);
    };
    until(
        "authority_expires_seconds",
        "When the authority's certificate ends, UTC seconds",
        identity.authority.certificate(),
    );
    until("certificate_expires_seconds", "When the hub's certificate ends, UTC seconds", &identity.own_certificate());
}
