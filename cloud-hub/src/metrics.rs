//! What the hub counts, in the text form of Prometheus. No device is ever a label: a fleet would make too many series.

use std::sync::atomic::AtomicU64;

use cloud_hub_gateway::Refusal;
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::hub::Hub;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stream {
    stream: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Alerts {
    kind: String,
    state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Signed {
    role: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Served {
    line: String,
    role: String,
}

/// All counters and gauges now.
pub async fn text(hub: &Hub) -> Result<String, sqlx::Error> {
    let mut registry = Registry::with_prefix("hub");
    let mut count = |name: &str, help: &str, value: u64| {
        let counter: Counter<u64, AtomicU64> = Counter::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    };
    let ingest = hub.ingest.status();
    count("ingest_batches", "Batches committed to the lake", ingest.batches);
    count("ingest_rows", "Rows committed to the lake", ingest.rows);
    count("ingest_files", "Files committed to the lake", ingest.files);
    count("ingest_duplicates", "Batches that had been committed before and came again", ingest.duplicates);
    count("ingest_conflicts", "Batches whose number was taken by another body", ingest.conflicts);
    count("ingest_quarantined", "Messages kept as they came", ingest.quarantined);
    count("ingest_refused", "Messages neither kept nor acknowledged", ingest.refused);
    count("ingest_dropped_records", "Records that devices reported as dropped", ingest.dropped);
    count("reports", "Reports of devices stored", ingest.reports);
    count("commands_sent", "Commands sent to devices, repeated ones included", hub.orders.sent());
    count("command_results", "Results of commands stored", hub.orders.results());
    count("gateway_file_bytes", "Bytes of files that devices read over QUIC", hub.connections.tally().file_bytes());
    let (made, failed, last, bytes) = hub.backups.counts();
    count("backups_made", "Backups made", made);
    count("backups_failed", "Backups that could not be made", failed);
    let gauge = |registry: &mut Registry, name: &str, help: &str, value: i64| {
        let gauge: Gauge = Gauge::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    gauge(&mut registry, "ingest_holding", "1 while the disk refuses and devices wait", ingest.holding.into());
    let slowed = i64::try_from(ingest.slowed).unwrap_or(i64::MAX);
    gauge(&mut registry, "ingest_slowed_streams", "Streams of devices that hold because the hub is busy", slowed);
    let waiting = i64::try_from(hub.connections.waiting_bytes()).unwrap_or(i64::MAX);
    gauge(&mut registry, "ingest_waiting_bytes", "Messages of devices that are not done with", waiting);
    gauge(
        &mut registry,
        "backup_last_seconds",
        "When the last backup was taken, as Unix time; 0: never",
        last / 1_000_000,
    );
    gauge(&mut registry, "backup_last_bytes", "How long it is", bytes as i64);
    let (patches, bytes) = crate::patches::total(hub.catalog.reader()).await?;
    gauge(&mut registry, "patches", "Patches to released packages", patches);
    gauge(&mut registry, "patches_bytes", "Disk that they take", bytes);
    gauge(&mut registry, "connections", "Devices connected", hub.connections.connected().len() as i64);
    let memory = tributary_process::resources::memory();
    gauge(&mut registry, "memory_bytes", "Resident memory", memory.resident as i64);
    gauge(&mut registry, "memory_peak_bytes", "Highest resident memory", memory.peak as i64);

    let refusals: Family<Reason, Counter> = Family::default();
    for refusal in Refusal::ALL {
        let reason = refusal.name().to_owned();
        refusals.get_or_create(&Reason { reason }).inc_by(hub.connections.tally().of(refusal));
    }
    registry.register("gateway_refusals", "What the gateway refused", refusals);

    let ignored: Family<Reason, Counter> = Family::default();
    for reason in crate::orders::Ignored::ALL {
        let of = Reason { reason: reason.name().to_owned() };
        ignored.get_or_create(&of).inc_by(hub.orders.ignored(reason));
    }
    registry.register("command_results_ignored", "Results of commands that changed nothing", ignored);

    gauge(&mut registry, "api_connections", "Connections to the web API", hub.gate.connections() as i64);
    let refusals: Family<Reason, Counter> = Family::default();
    for refusal in crate::api::gate::Reason::ALL {
        let reason = refusal.name().to_owned();
        refusals.get_or_create(&Reason { reason }).inc_by(hub.gate.of(refusal));
    }
    registry.register("api_refusals", "Connections to the web API that were not served", refusals);
    crate::identity::metrics(&mut registry, &hub.identity);

    let refusals: Family<Reason, Counter> = Family::default();
    for refusal in crate::access::Refusal::ALL {
        let reason = refusal.name().to_owned();
        refusals.get_or_create(&Reason { reason }).inc_by(hub.access.of(refusal));
    }
    registry.register("access_refusals", "Calls of the web API that were not let through", refusals);

    let left: Family<Signed, Gauge> = Family::default();
    let ends = crate::publish::status::left(&mut *hub.catalog.reader().acquire().await?, hub.now()).await;
    // Targets that cannot be read are told of elsewhere.
    for (role, seconds) in ends.unwrap_or_default() {
        left.get_or_create(&Signed { role }).set(seconds);
    }
    let help = "Seconds until what is signed for a role ends, below 0 once it has; of assignments the shortest one that a \
                device which is there has not taken";
    registry.register("signed_left_seconds", help, left);

    let rows: Family<Stream, Gauge> = Family::default();
    let sums: Vec<(String, i64)> =
        sqlx::query_as("select stream, cast(sum(rows) as bigint) from lake_files group by stream")
            .fetch_all(hub.catalog.reader())
            .await?;
    for (stream, sum) in sums {
        rows.get_or_create(&Stream { stream }).set(sum);
    }
    registry.register("lake_rows", "Rows in the lake", rows);

    let unfit: Family<Served, Gauge> = Family::default();
    // Devices' reports are the only place where this stands; one that cannot be read is told of elsewhere.
    let mut catalog = hub.catalog.reader().acquire().await?;
    let members = crate::rollout::members(&mut catalog).await.unwrap_or_default();
    drop(catalog);
    for lack in members.iter().flat_map(|member| &member.unfit) {
        let of = Served { line: lack.line.to_string(), role: lack.role.to_string() };
        unfit.get_or_create(&of).inc();
    }
    registry.register("unfit_devices", "Devices that cannot run the release that they were assigned", unfit);

    let alerts: Family<Alerts, Gauge> = Family::default();
    let counts: Vec<(String, String, i64)> =
        sqlx::query_as("select kind, state, count(*) from alerts where state <> 'resolved' group by kind, state")
            .fetch_all(hub.catalog.reader())
            .await?;
    for (kind, state, found) in counts {
        alerts.get_or_create(&Alerts { kind, state }).set(found);
    }
    registry.register("alerts", "Alerts that are not resolved", alerts);

    let mut text = String::new();
    // Writing into a string has no way to fail.
    let _ = encode(&mut text, &registry);
    Ok(text)
}
