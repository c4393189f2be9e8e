//! Sketches of all devices added up, and the windows that are made of them.

use cloud_hub_core::drift::{Findings, Settings, judge};
use sqlx::SqliteConnection;
use tributary_stats::{Reference, Sketch, WindowKey};
use tributary_wire::{LineName, Micros, Role, VersionNumber};

use super::MonitorError;

/// Adds the sketches of one lake file to what is known. Called in the transaction that moves the monitor's progress, so that every
/// file counts once. Sketches over other bins than those before are refused with the reason.
pub async fn absorb(
    catalog: &mut SqliteConnection,
    sketches: &[(String, Sketch)],
) -> Result<Vec<String>, MonitorError> {
    let mut refused = Vec::new();
    for (device, sketch) in sketches {
        let key = &sketch.window;
        let query = "select sketch from sketches where line = $1 and version = $2 and role = $3 and start_time = $4
                     and end_time = $5";
        let known: Option<Vec<u8>> = sqlx::query_scalar(query)
            .bind(&key.line)
            .bind(i64::from(key.version))
            .bind(&key.role)
            .bind(key.start)
            .bind(key.end)
            .fetch_optional(&mut *catalog)
            .await?;
        let merged = match known {
            None => sketch.clone(),
            Some(bytes) => {
                let mut merged = Sketch::decode(&bytes)?;
                if let Err(error) = merged.merge(sketch) {
                    refused.push(format!("{device}: {error}"));
                    continue;
                }
                merged
            }
        };
        sqlx::query(
            "insert into sketches (line, version, role, start_time, end_time, sketch, parts)
             values ($1, $2, $3, $4, $5, $6, 1)
             on conflict (line, version, role, start_time, end_time)
             do update set sketch = excluded.sketch, parts = sketches.parts + 1",
        )
        .bind(&key.line)
        .bind(i64::from(key.version))
        .bind(&key.role)
        .bind(key.start)
        .bind(key.end)
        .bind(merged.encode())
        .execute(&mut *catalog)
        .await?;
        sqlx::query(
            "insert into sketch_watermarks (line, device, until) values ($1, $2, $3)
             on conflict (line, device) do update set until = max(sketch_watermarks.until, excluded.until)",
        )
        .bind(&key.line)
        .bind(device)
        .bind(key.end)
        .execute(&mut *catalog)
        .await?;
    }
    Ok(refused)
}

/// Up to which event time the devices have spoken: the slowest of them, but none waits for one that has fallen
/// behind by more than `patience`.
async fn watermark(
    catalog: &mut SqliteConnection,
    line: &LineName,
    patience: i64,
) -> Result<Option<i64>, MonitorError> {
    let query = "select until from sketch_watermarks where line = $1";
    let until: Vec<i64> = sqlx::query_scalar(query).bind(line.as_str()).fetch_all(catalog).await?;
    let Some(newest) = until.iter().max().copied() else { return Ok(None) };
    Ok(until.into_iter().filter(|until| *until >= newest.saturating_sub(patience)).min())
}

/// Versions of a line that devices have sent sketches of.
pub async fn versions(catalog: &mut SqliteConnection, line: &LineName) -> Result<Vec<VersionNumber>, MonitorError> {
    let query = "select distinct version from sketches where line = $1 and role = $2 and version > 0 order by version";
    let role = Role::primary();
    let found: Vec<i64> = sqlx::query_scalar(query).bind(line.as_str()).bind(role.as_str()).fetch_all(catalog).await?;
    Ok(found.into_iter().map(|version| VersionNumber(version as u32)).collect())
}

/// Judges the windows of a version that have become complete. Windows follow each other from the version's second
/// day on: on its first, devices switched to it one after the other.
pub async fn judge_new(
    catalog: &mut SqliteConnection,
    (line, version): (&LineName, VersionNumber),
    settings: &Settings,
    references: &[Reference],
    now: Micros,
) -> Result<Vec<Findings>, MonitorError> {
    let width = i64::from(settings.window_days) * Micros::DAY;
    let Some((output, inputs)) = references.split_last() else { return Ok(Vec::new()) };
    let Some(watermark) = watermark(catalog, line, width).await? else { return Ok(Vec::new()) };
    let Some((first, last)) = extent(catalog, line, version).await? else { return Ok(Vec::new()) };
    let mut start = match judged_until(catalog, line, version).await? {
        Some(until) => until,
        None => (first.div_euclid(Micros::DAY) + 1) * Micros::DAY,
    };
    let mut new = Vec::new();
    while start + width <= watermark.min(last) {
        let end = start + width;
        let findings = judge_window(catalog, (line, version), settings, (inputs, output), (start, end)).await?;
        super::findings::store(catalog, (line, version), "inputs", (findings.start, findings.end), &findings, now)
            .await?;
        new.push(findings);
        start = end;
    }
    Ok(new)
}

async fn extent(
    catalog: &mut SqliteConnection,
    line: &LineName,
    version: VersionNumber,
) -> Result<Option<(i64, i64)>, MonitorError> {
    let query = "select min(start_time), max(end_time) from sketches where line = $1 and version = $2 and role = $3";
    let (first, last): (Option<i64>, Option<i64>) = sqlx::query_as(query)
        .bind(line.as_str())
        .bind(i64::from(version.0))
        .bind(Role::primary().as_str())
        .fetch_one(catalog)
        .await?;
    Ok(first.zip(last))
}

async fn judged_until(
    catalog: &mut SqliteConnection,
    line: &LineName,
    version: VersionNumber,
) -> Result<Option<i64>, MonitorError> {
    let query = "select max(end_time) from findings where line = $1 and version = $2 and kind = 'inputs'";
    Ok(sqlx::query_scalar(query).bind(line.as_str()).bind(i64::from(version.0)).fetch_one(catalog).await?)
}

async fn judge_window(
    catalog: &mut SqliteConnection,
    (line, version): (&LineName, VersionNumber),
    settings: &Settings,
    (inputs, output): (&[Reference], &Reference),
    (start, end): (i64, i64),
) -> Result<Findings, MonitorError> {
    let role = Role::primary();
    let query = "select start_time, sketch from sketches where line = $1 and version = $2 and role = $3
                 and start_time >= $4 and end_time <= $5 order by start_time";
    let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(query)
        .bind(line.as_str())
        .bind(i64::from(version.0))
        .bind(role.as_str())
        .bind(start)
        .bind(end)
        .fetch_all(catalog)
        .await?;
    let window = WindowKey { line: line.to_string(), version: version.0, role: role.to_string(), start, end };
    let mut whole = Sketch::new(window, inputs, output);
    let mut days = std::collections::BTreeSet::new();
    let mut foreign = None;
    for (begin, bytes) in rows {
        match whole.absorb(&Sketch::decode(&bytes)?) {
            Ok(()) => _ = days.insert(begin.div_euclid(Micros::DAY)),
            Err(error) => foreign = Some(error.to_string()),
        }
    }
    let mut findings = judge(settings, inputs, output, &whole);
    // A window that lacks days would compare, say, two week-ends with whole weeks.
    let expected = settings.window_days as usize;
    if days.len() < expected {
        findings.signals.clear();
        findings.skipped = Some(format!("{} of {expected} days have predictions", days.len()));
    }
    if let Some(problem) = foreign {
        findings.signals.clear();
        findings.skipped = Some(format!("sketches over other bins than the package's: {problem}"));
    }
    Ok(findings)
}
