//! The monitor's loop: reads what the lake has taken in, brings windows and days up to date, judges, and acts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cloud_hub_core::quality::Area;
use cloud_hub_lake::FileEntry;
use cloud_hub_trainer::RunResult;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::SqliteConnection;
use tributary_process::config::HumanDuration;
use tributary_process::shutdown::Shutdown;
use tributary_release::Package;
use tributary_stats::Reference;
use tributary_wire::{LineName, Micros, Role, StreamName, VersionNumber};

use super::quality::{self, Joined};
use super::verdict::{self, Stale};
use super::{records, windows};
use crate::hub::Hub;
use crate::lines::{self, Line, closed_loop};
use crate::registry::{aliases, versions, views};

/// How the monitor works.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How often it looks for new records.
    pub interval: HumanDuration,
    /// How long a day of which records arrived rests before it is worked out anew: many records come at once.
    pub settle: HumanDuration,
}

impl Default for Config {
    fn default() -> Self {
        Self { interval: HumanDuration(Duration::from_millis(500)), settle: HumanDuration(Duration::from_secs(2)) }
    }
}

/// Under this name the progress table remembers that labels without an event time have come.
const UNTIMED: &str = "labels-untimed";

/// Watches until the signal.
pub async fn run(hub: Arc<Hub>, shutdown: Shutdown) -> anyhow::Result<()> {
    let mut watch = Watch { hub, references: HashMap::new(), waiting: HashMap::new(), looked: false };
    loop {
        if let Err(error) = watch.look().await {
            tracing::error!(error = format!("{error:#}"), "the monitor could not go on; trying again");
        }
        if shutdown.unless_given(tokio::time::sleep(watch.hub.config.monitor.interval.0)).await.is_none() {
            return Ok(());
        }
    }
}

struct Watch {
    hub: Arc<Hub>,
    /// Of every package that was looked at; versions never change.
    references: HashMap<(LineName, VersionNumber), Arc<Vec<Reference>>>,
    /// Lines whose retraining could not begin yet: which version is stale, and why.
    waiting: HashMap<LineName, (VersionNumber, String)>,
    looked: bool,
}

impl Watch {
    async fn look(&mut self) -> anyhow::Result<()> {
        let mut changed = self.take_sketches().await?;
        self.mark_days().await?;
        changed |= self.work_out_days().await?;
        // Once after every start: what was judged before a crash may not have been acted upon.
        if changed || !self.looked {
            for line in self.lines().await? {
                if line.settings.drift.enabled {
                    self.judge(&line).await.with_context(|| format!("judge model line {}", line.name))?;
                }
            }
            self.looked = true;
        }
        self.retrain().await
    }

    async fn lines(&self) -> anyhow::Result<Vec<Line>> {
        Ok(lines::list(&mut *self.hub.catalog.reader().acquire().await?, "", 10_000).await?)
    }

    /// Files of a stream that the monitor has not read.
    async fn unread(&self, stream: &str) -> anyhow::Result<Vec<FileEntry>> {
        let query = "select number from monitor_progress where stream = $1";
        let number: Option<i64> =
            sqlx::query_scalar(query).bind(stream).fetch_optional(self.hub.catalog.reader()).await?;
        Ok(self.hub.lake.files_after(&StreamName::new(stream)?, number.unwrap_or(0)))
    }

    async fn read(&self, entry: &FileEntry) -> anyhow::Result<arrow::array::RecordBatch> {
        let (lake, entry) = (self.hub.lake.clone(), entry.clone());
        Ok(tokio::task::spawn_blocking(move || lake.read(&entry)).await??)
    }

    async fn take_sketches(&self) -> anyhow::Result<bool> {
        let unread = self.unread("sketches").await?;
        for entry in &unread {
            let (sketches, mut refused) = records::sketches(&self.read(entry).await?)?;
            let mut catalog = self.hub.catalog.write().await?;
            refused.extend(windows::absorb(&mut catalog, &sketches).await?);
            advance(&mut catalog, "sketches", entry.number).await?;
            catalog.commit().await?;
            for reason in refused {
                tracing::warn!(file = entry.path, reason, "a sketch does not count");
            }
        }
        Ok(!unread.is_empty())
    }

    /// Days of which observations or labels arrived have to be worked out again.
    async fn mark_days(&self) -> anyhow::Result<()> {
        for stream in ["observations", "labels"] {
            let unread = self.unread(stream).await?;
            let Some(last) = unread.last() else { continue };
            let mut untimed = false;
            if stream == "labels" {
                for entry in &unread {
                    untimed |= records::labels(&self.read(entry).await?)?.iter().any(|label| label.time.is_none());
                }
            }
            let now = self.hub.now();
            let mut catalog = self.hub.catalog.write().await?;
            for entry in &unread {
                let query = "insert into quality_dirty (day, since) values ($1, $2) on conflict (day) do nothing";
                sqlx::query(query).bind(entry.day).bind(now.0).execute(&mut *catalog).await?;
            }
            if untimed {
                // Such a label may be of any day that was seen.
                let query =
                    "insert into quality_dirty (day, since) select distinct day, $1 from quality_days where true
                             on conflict (day) do nothing";
                sqlx::query(query).bind(now.0).execute(&mut *catalog).await?;
                advance(&mut catalog, UNTIMED, 1).await?;
            }
            advance(&mut catalog, stream, last.number).await?;
            catalog.commit().await?;
        }
        Ok(())
    }

    async fn work_out_days(&self) -> anyhow::Result<bool> {
        let now = self.hub.now();
        let settled = now.0.saturating_sub(self.hub.config.monitor.settle.0.as_micros() as i64);
        let query = "select day from quality_dirty where since <= $1 order by day";
        let days: Vec<i64> = sqlx::query_scalar(query).bind(settled).fetch_all(self.hub.catalog.reader()).await?;
        for day in &days {
            let joined = self.join(*day, *day, Vec::new()).await?;
            let mut catalog = self.hub.catalog.write().await?;
            quality::store_day(&mut catalog, *day, &joined).await?;
            // This loop alone marks days, so none can have been marked between the scan and here.
            sqlx::query("delete from quality_dirty where day = $1").bind(day).execute(&mut *catalog).await?;
            catalog.commit().await?;
        }
        Ok(!days.is_empty())
    }

    /// Observations of some days joined with their labels and the given entity keys, by line and version.
    async fn join(
        &self,
        first: i64,
        last: i64,
        entities: Vec<String>,
    ) -> anyhow::Result<std::collections::BTreeMap<(String, i64), Joined>> {
        let query = "select count(*) from monitor_progress where stream = $1";
        let untimed: i64 = sqlx::query_scalar(query).bind(UNTIMED).fetch_one(self.hub.catalog.reader()).await?;
        // A label without an event time lies on the day on which it came.
        let label_days = if untimed > 0 { i64::MIN..=i64::MAX } else { first..=last };
        let lake = self.hub.lake.clone();
        tokio::task::spawn_blocking(move || {
            let (observations, labels) = (StreamName::new("observations")?, StreamName::new("labels")?);
            // A stream that nobody sent to has no columns and no files.
            let known = |stream: &StreamName| !lake.files(stream, i64::MIN..=i64::MAX).is_empty();
            let (mut seen, mut truth) = (Vec::new(), Vec::new());
            if known(&observations) {
                let mut columns = vec!["event_id", "event_time", "line", "version", "role", "output", "decision"];
                if lake.schema(&observations).columns.iter().any(|column| column.name == "inclusion") {
                    columns.push("inclusion");
                }
                for batch in lake.scan(&observations, first..=last, Some(&columns))? {
                    seen.extend(records::observations(&batch?)?);
                }
            }
            if known(&labels) {
                let columns = ["event_id", "label", "event_time", "known_at"];
                for batch in lake.scan(&labels, label_days, Some(&columns))? {
                    truth.extend(records::labels(&batch?)?);
                }
            }
            let mut keys = HashMap::new();
            let events = StreamName::new("events")?;
            if !entities.is_empty() && known(&events) {
                let columns: Vec<&str> = ["event_id"].into_iter().chain(entities.iter().map(String::as_str)).collect();
                for batch in lake.scan(&events, first..=last, Some(&columns))? {
                    keys.extend(records::events(&batch?, &entities)?);
                }
            }
            Ok(quality::join(seen, truth, &keys))
        })
        .await?
    }

    async fn judge(&mut self, line: &Line) -> anyhow::Result<()> {
        let name = &line.name;
        let mut reader = self.hub.catalog.reader().acquire().await?;
        let mut seen = windows::versions(&mut reader, name).await?;
        let query = "select distinct version from quality_days where line = $1";
        let labelled: Vec<i64> = sqlx::query_scalar(query).bind(name.as_str()).fetch_all(&mut *reader).await?;
        seen.extend(labelled.into_iter().map(|version| VersionNumber(version as u32)));
        seen.sort_unstable();
        seen.dedup();
        let query = "select distinct version from wishes where line = $1 and role = $2";
        let assigned: Vec<i64> = sqlx::query_scalar(query)
            .bind(name.as_str())
            .bind(Role::primary().as_str())
            .fetch_all(&mut *reader)
            .await?;
        drop(reader);
        let unanswered = self.waiting.remove(name).map(|(version, _)| version);
        for version in seen {
            let new = self.judge_inputs(line, version).await? + self.judge_quality(line, version).await?;
            let now = self.hub.now();
            let mut catalog = self.hub.catalog.write().await?;
            // Where the hub assigned nothing yet, whatever the devices run is watched.
            let at_work = assigned.is_empty() || assigned.contains(&i64::from(version.0));
            let stale = if at_work {
                verdict::look(&mut catalog, (name, version), &line.settings.drift, now).await?
            } else {
                verdict::retire(&mut catalog, (name, version), now).await?;
                None
            };
            catalog.commit().await?;
            if let Some(stale) = stale {
                self.tell(&stale, now);
                // A run is worth asking for when there is news; the same findings would train the same model again.
                if new > 0 || !stale.opened.is_empty() || unanswered == Some(version) || !self.looked {
                    self.waiting.insert(name.clone(), (version, stale.reason));
                }
            }
        }
        Ok(())
    }

    /// Judges sketches; how many windows are new.
    async fn judge_inputs(&mut self, line: &Line, version: VersionNumber) -> anyhow::Result<usize> {
        let Some(references) = self.references(&line.name, version).await? else { return Ok(0) };
        let (settings, now) = (&line.settings.drift, self.hub.now());
        let mut catalog = self.hub.catalog.write().await?;
        let new = windows::judge_new(&mut catalog, (&line.name, version), settings, &references, now).await?;
        catalog.commit().await?;
        Ok(new.len())
    }

    /// Judges labelled observations; how many windows are new.
    async fn judge_quality(&self, line: &Line, version: VersionNumber) -> anyhow::Result<usize> {
        let settings = &line.settings.drift.quality;
        let mut reader = self.hub.catalog.reader().acquire().await?;
        let due = quality::due(&mut reader, (&line.name, version), settings).await?;
        let trained = trained(&mut reader, &line.name, version).await?;
        let entities = entities(&mut reader, line).await?;
        drop(reader);
        let new = due.len();
        for (first, last) in due {
            let mut joined = self.join(first, last, entities.clone()).await?;
            let Some(own) = joined.remove(&(line.name.to_string(), i64::from(version.0))) else { continue };
            let now = self.hub.now();
            let mut catalog = self.hub.catalog.write().await?;
            let of = (&line.name, version);
            quality::judge_window(&mut catalog, of, settings, trained, (first, last), &own, now).await?;
            catalog.commit().await?;
        }
        Ok(new)
    }

    /// Reference bins of a version's package; `None` for a version that the registry does not know.
    async fn references(
        &mut self,
        line: &LineName,
        version: VersionNumber,
    ) -> anyhow::Result<Option<Arc<Vec<Reference>>>> {
        let key = (line.clone(), version);
        if let Some(known) = self.references.get(&key) {
            return Ok(Some(known.clone()));
        }
        let record = versions::find(&mut *self.hub.catalog.reader().acquire().await?, line, version).await?;
        let Some(record) = record else { return Ok(None) };
        let (packages, sha256) = (self.hub.packages.clone(), record.reference()?.sha256);
        let package = tokio::task::spawn_blocking(move || -> anyhow::Result<Package> {
            Ok(Package::read(&packages.read(&sha256)?)?)
        });
        let references = Arc::new(package.await?.context("read the package of a version")?.reference);
        self.references.insert(key, references.clone());
        Ok(Some(references))
    }

    fn tell(&self, stale: &Stale, now: Micros) {
        for id in &stale.opened {
            tracing::warn!(line = %stale.line, version = stale.version.0, alert = id, "{}", stale.reason);
            let told = json!({
                "id": id, "line": stale.line, "version": stale.version, "reason": stale.reason, "time": now,
            });
            self.hub.connections.publish_hub("alerts", told.to_string());
        }
    }

    /// Asks for the training that stale lines need, again and again until it begins or nothing is stale any more.
    async fn retrain(&mut self) -> anyhow::Result<()> {
        let mut settled = Vec::new();
        for (line, (version, reason)) in &self.waiting {
            let champion =
                aliases::version(&mut *self.hub.catalog.reader().acquire().await?, line, aliases::CHAMPION).await?;
            // A champion that came after it already answers for what was found.
            let past = champion.is_some_and(|champion| champion != *version);
            if past || closed_loop::retrain(&self.hub, line, reason, self.hub.now()).await?.is_some() {
                settled.push(line.clone());
            }
        }
        settled.iter().for_each(|line| _ = self.waiting.remove(line));
        Ok(())
    }
}

/// The version's own score on held-out days, where a run of this hub made it.
async fn trained(
    catalog: &mut SqliteConnection,
    line: &LineName,
    version: VersionNumber,
) -> anyhow::Result<Option<Area>> {
    let Some(record) = versions::find(catalog, line, version).await? else { return Ok(None) };
    let Ok(result) = serde_json::from_str::<RunResult>(&record.result_json) else { return Ok(None) };
    let scores = result.served();
    let (positives, rows) = (scores.positives as u64, scores.rows as u64);
    Ok(Some(Area::from_counts(scores.auc_roc, positives, rows.saturating_sub(positives))))
}

/// Whom the line's events are about: customers, terminals.
async fn entities(catalog: &mut SqliteConnection, line: &Line) -> anyhow::Result<Vec<String>> {
    let view = views::get(catalog, &line.view_name, Some(line.view_version)).await?;
    let view = view.view()?;
    Ok(view.entities().iter().map(|entity| entity.name.clone()).collect())
}

async fn advance(catalog: &mut SqliteConnection, stream: &str, number: i64) -> Result<(), sqlx::Error> {
    let query = "insert into monitor_progress (stream, number) values ($1, $2)
                 on conflict (stream) do update set number = excluded.number";
    sqlx::query(query).bind(stream).bind(number).execute(catalog).await?;
    Ok(())
}
