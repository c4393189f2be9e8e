//! What the hub counts, in the text form of Prometheus. No device id is a label: their number has no bound.

use std::fmt::Write as _;

use serde_json::Value;

use crate::hub::Hub;

/// All metrics as text.
pub(super) async fn text(hub: &Hub) -> anyhow::Result<String> {
    let mut out = String::new();
    let memory = tributary_process::resources::memory();
    one(&mut out, "hub_memory_resident_bytes", "gauge", "Resident memory of the hub.", memory.resident);
    one(&mut out, "hub_devices_connected", "gauge", "Devices with a live connection.", hub.connections.connected().len() as u64);
    // Ingest's own counters, by the names of their fields.
    if let Value::Object(counters) = serde_json::to_value(hub.ingest.status())? {
        for (name, value) in counters {
            if let Some(value) = value.as_u64() {
                one(&mut out, &format!("hub_ingest_{name}"), "untyped", "See the hub's ingest.", value);
            }
        }
    }
    let mut catalog = hub.catalog.reader().acquire().await?;
    for (name, label, help, query) in [
        ("hub_devices", "", "Devices ever admitted.", "select '', count(*) from devices"),
        ("hub_lake_rows", "stream", "Rows in the lake.", "select stream, sum(rows) from lake_files group by stream"),
        ("hub_lake_bytes", "stream", "Bytes in the lake.", "select stream, sum(bytes) from lake_files group by stream"),
        ("hub_quarantined", "reason", "Messages in quarantine.",
            "select reason, count(*) from quarantine where state = 'kept' group by reason"),
        ("hub_alerts_unresolved", "kind", "Alerts not resolved.",
            "select kind, count(*) from alerts where state <> 'resolved' group by kind"),
        ("hub_runs", "state", "Training runs.", "select state, count(*) from runs group by state"),
        ("hub_versions", "line", "Versions.", "select line, count(*) from versions group by line"),
    ] {
        let rows: Vec<(String, i64)> = sqlx::query_as(query).fetch_all(&mut *catalog).await?;
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (value, count) in rows {
            let _ = match label {
                "" => writeln!(out, "{name} {count}"),
                label => writeln!(out, "{name}{{{label}=\"{}\"}} {count}", escape(&value)),
            };
        }
    }
    Ok(out)
}

fn one(out: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
