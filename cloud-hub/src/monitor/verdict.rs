//! From findings to alerts: the one place where a version is called stale.

use cloud_hub_core::drift::{Settings, Signal, verdict};
use serde_json::json;
use sqlx::SqliteConnection;
use tributary_wire::{LineName, Micros, VersionNumber};

use super::findings::{self, QualityFindings};
use super::{MonitorError, alerts};
use crate::lines::story;

/// A version that does not fit its world any more.
#[derive(Debug, Clone, PartialEq)]
pub struct Stale {
    /// Which line.
    pub line: LineName,
    /// Which version.
    pub version: VersionNumber,
    /// In words, for people and as the reason of a run.
    pub reason: String,
    /// The alerts that somebody should be told of now; empty when they were open before.
    pub opened: Vec<String>,
}

/// Looks at the last findings of a version, opens and resolves its alerts, and says whether it is stale.
pub async fn look(
    catalog: &mut SqliteConnection,
    (line, version): (&LineName, VersionNumber),
    settings: &Settings,
    now: Micros,
) -> Result<Option<Stale>, MonitorError> {
    // Skipped windows lie between judged ones, so more are read than are asked for.
    let inputs = findings::load(catalog, (line, version), "inputs", 4 * settings.consecutive + 8).await?;
    let quality: Vec<QualityFindings> =
        findings::load(catalog, (line, version), "quality", 4 * settings.quality.consecutive + 8).await?;
    let quality: Vec<_> = quality.into_iter().map(|window| window.findings).collect();
    let mut stale: Option<Stale> = None;
    for (kind, consecutive, windows) in
        [("quality", settings.quality.consecutive, &quality), ("drift", settings.consecutive, &inputs)]
    {
        let signals = verdict(consecutive, windows);
        let subject = subject(line, version);
        let Some(strongest) = signals.first() else {
            if alerts::gone(catalog, kind, &subject, now).await? {
                let message = format!("version {version}: the {kind} alert is resolved, its cause is gone");
                story::tell(catalog, line, "alert-resolved", &message, json!({"version": version}), now).await?;
            }
            continue;
        };
        let reason = describe(version, strongest, signals.len(), consecutive);
        let last = windows.iter().rev().find(|window| window.skipped.is_none());
        let detail = json!({
            "line": line, "version": version, "reason": reason, "signals": signals,
            "window": last.map(|window| json!({"start": window.start, "end": window.end})),
        });
        let opened = alerts::seen(catalog, (kind, &subject, "warning"), &detail, now).await?;
        if opened.is_some() {
            story::tell(catalog, line, "alert", &reason, detail, now).await?;
        }
        let found = stale.get_or_insert_with(|| Stale { line: line.clone(), version, reason, opened: Vec::new() });
        found.opened.extend(opened);
    }
    Ok(stale)
}

/// Resolves the alerts of a version that no device is assigned any more.
pub async fn retire(
    catalog: &mut SqliteConnection,
    (line, version): (&LineName, VersionNumber),
    now: Micros,
) -> Result<(), MonitorError> {
    for kind in ["quality", "drift"] {
        if alerts::gone(catalog, kind, &subject(line, version), now).await? {
            let message = format!("version {version}: the {kind} alert is resolved, no device is assigned it any more");
            story::tell(catalog, line, "alert-resolved", &message, json!({"version": version}), now).await?;
        }
    }
    Ok(())
}

fn subject(line: &LineName, version: VersionNumber) -> String {
    format!("{line}/{version}")
}

fn describe(version: VersionNumber, strongest: &Signal, signals: usize, consecutive: u32) -> String {
    let Signal { kind, name, effect, threshold, p_value, .. } = strongest;
    let more = match signals {
        1 => String::new(),
        more => format!(" and {} more signals", more - 1),
    };
    // Below this nothing is left of it but a zero that it is not.
    let p = if *p_value < 1e-300 { "p < 1e-300".to_owned() } else { format!("p = {p_value:.1e}") };
    format!(
        "version {version}: {kind} {name} changed by {effect:.3} (tolerated {threshold:.3}, {p}) in {consecutive} \
         consecutive windows{more}"
    )
}
