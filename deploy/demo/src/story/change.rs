//! The pattern changes; the hub notices, retrains, and rolls out.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use tributary_wire::Micros;

use super::hub::Run;
use super::{CHANGE_DAY, COMPARE_DAYS, DAYS, Story};
use crate::fleet::LINE;
use crate::step::Step;
use crate::summary::Comparison;
use crate::traffic::LABEL_DELAY;
use crate::wait;

/// The last day on which an alert still leaves enough days for the rest of the story.
const LAST_ALERT_DAY: i64 = CHANGE_DAY + 21;
/// Retraining may begin at once, but the new pattern needs labelled days before a model can learn it.
const LAST_RETRAIN_DAY: i64 = LAST_ALERT_DAY + 7;
/// From a day's counts to their verdict. Too short costs a day of the story, nothing else.
const VERDICT: Duration = Duration::from_millis(200);

impl Story {
    /// The pattern changes and an alert says so.
    pub async fn detect(&mut self) -> Result<()> {
        self.set_line(json!({"strategy": "waves", "percent": [30, 60, 100], "min_predictions": 100})).await?;
        self.days_until(CHANGE_DAY).await?;
        let early = self.alerts().await?;
        ensure!(early.is_empty(), "there was an alert before anything had changed: {}", early[0]);
        self.display.fact(format!("day {CHANGE_DAY}: stolen cards are now used at night, often, for ordinary amounts"));
        let alert = loop {
            if let Some(alert) = self.alerts().await?.into_iter().next() {
                break alert;
            }
            ensure!(self.traffic.day < LAST_ALERT_DAY, "no alert within {} days", LAST_ALERT_DAY - CHANGE_DAY);
            self.day().await?;
            self.judged().await?;
        };
        self.alerted = self.display.elapsed();
        self.summary.alerts = self.alerts().await?.len() as u64;
        let days = self.traffic.day - CHANGE_DAY;
        let what = alert["detail"]["reason"].as_str().unwrap_or("no reason given").to_owned();
        self.display.fact(format!("alert after {days} days: {what}"));
        Ok(())
    }

    /// The same days without a change: nothing must happen.
    pub async fn stay_calm(&mut self) -> Result<()> {
        self.set_line(json!({"strategy": "waves", "percent": [30, 60, 100], "min_predictions": 100})).await?;
        self.days_until(LAST_ALERT_DAY).await?;
        self.judged().await?;
        let alerts = self.alerts().await?;
        self.summary.alerts = alerts.len() as u64;
        let drift_runs = self.runs().await?.into_iter().filter(|run| run.origin == "drift").count();
        self.summary.retrainings = drift_runs as u64;
        ensure!(alerts.is_empty(), "nothing changed, but there is an alert: {}", alerts[0]);
        ensure!(drift_runs == 0, "nothing changed, but {drift_runs} runs were started");
        self.display.fact("nothing changed: no alert, no retraining");
        Ok(())
    }

    async fn alerts(&self) -> Result<Vec<Value>> {
        self.model_alerts().await
    }

    /// Waits until the hub has judged the newest day whose labels are all known.
    async fn judged(&mut self) -> Result<()> {
        let day = self.traffic.day - 1 - LABEL_DELAY / Micros::DAY;
        let (midnight, payments) = (self.traffic.midnight(day).0, self.traffic.payments_of(day));
        wait::until("the hub has judged a day", self.patience(), async || {
            self.fleet.check()?;
            let quality: Value = self.ask(&format!("lines/{LINE}/quality?from={midnight}")).await?;
            let of_day = quality["days"].as_array().into_iter().flatten().filter(|row| row["day"] == midnight);
            let labelled: u64 = of_day.filter_map(|row| row["labelled"].as_u64()).sum();
            Ok(if labelled >= payments {
                Ok(())
            } else {
                Err(format!("{labelled} of {payments} payments of day {day}"))
            })
        })
        .await?;
        // The verdict follows in the same round of the monitor.
        tokio::time::sleep(VERDICT).await;
        Ok(())
    }

    /// A run that drift started gives a version that is better than the champion on the same later payments.
    pub async fn retrain(&mut self) -> Result<()> {
        let mut seen = 0;
        loop {
            let run = self.next_drift_run(seen).await?;
            seen = run.id;
            self.summary.retrainings += 1;
            self.display.fact(format!("run {} was started by the alert: {}", run.id, run.reason));
            if self.sabotaged(Step::Retrain) {
                self.post::<Value>(&format!("runs/{}/cancel", run.id), &json!({})).await?;
                // The alert is still open: the hub may try again, and is stopped again.
                self.set_retrain_manual().await?;
            }
            let version = self.finish_run(run.id).await?;
            if self.rollout_begins(version).await? {
                self.display
                    .fact(format!("version {version} ranks the same later payments better and is champion now"));
                return Ok(());
            }
            self.display.fact(format!("version {version} is not better yet; more labels are needed"));
        }
    }

    /// From now on only a person starts a run.
    pub async fn set_retrain_manual(&self) -> Result<()> {
        let mut line: Value = self.ask(&format!("lines/{LINE}")).await?;
        let fields = line.as_object_mut().expect("a line is an object");
        for shown_only in ["name", "revision", "created", "changed", "aliases"] {
            fields.remove(shown_only);
        }
        fields.insert("retrain".into(), "manual".into());
        self.tell_hub::<Value>(hyper::Method::PUT, &format!("lines/{LINE}"), &line).await?;
        Ok(())
    }

    /// The next run that drift started, after the one already seen; days go on while the alert waits for labels.
    async fn next_drift_run(&mut self, seen: i64) -> Result<Run> {
        let deadline = Instant::now() + self.patience();
        loop {
            let runs = self.runs().await?;
            if let Some(run) = runs.into_iter().find(|run| run.origin == "drift" && run.id > seen) {
                return Ok(run);
            }
            if Instant::now() > deadline {
                bail!("the alert started no run");
            }
            if self.traffic.day < LAST_RETRAIN_DAY {
                self.day().await?;
            }
            self.judged().await?;
        }
    }

    /// Whether the closed loop puts a version forward; it decides within moments of the run's end.
    async fn rollout_begins(&mut self, version: u32) -> Result<bool> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if self.rollout_of(version).await?.is_some() {
                return Ok(true);
            }
            let story: Value = self.ask(&format!("lines/{LINE}/events?limit=20")).await?;
            let kept = story["items"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|event| event["kind"] == "champion-kept" && event["detail"]["version"] == version);
            if kept || Instant::now() > deadline {
                return Ok(false);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// One agent first, then two, then all; each wave waits for evidence from the one before.
    pub async fn waves(&mut self) -> Result<()> {
        let version = self.newest_version();
        if self.sabotaged(Step::Waves) {
            let rollout = self.rollout_of(version).await?;
            let id = rollout.map(|rollout| rollout.id).unwrap_or_default();
            self.post::<Value>(&format!("rollouts/{id}/pause"), &json!({"reason": "sabotage"})).await?;
        }
        let rollout = self.roll_out(version, i64::from(DAYS) - COMPARE_DAYS - 20).await?;
        self.summary.alert_to_fleet_s = Some(self.display.elapsed() - self.alerted);
        let mut members = rollout.members.clone();
        members.sort_by_key(|member| (member.wave, member.assigned));
        let waves: Vec<usize> = members.iter().map(|member| member.wave).collect();
        ensure!(waves == [1, 2, 3], "the agents were reached in waves {waves:?}");
        let rising = members.windows(2).all(|pair| pair[0].assigned < pair[1].assigned);
        ensure!(rising, "a later wave was assigned before an earlier one");
        let order: Vec<&str> = members.iter().map(|member| member.device.as_str()).collect();
        self.display.fact(format!(
            "{} in 3 waves, {:.0} s after the alert; no request failed",
            order.join(", then "),
            self.display.elapsed() - self.alerted
        ));
        ensure!(self.traffic.failed == 0, "{} requests failed", self.traffic.failed);
        self.retrained_from = self.traffic.day;
        Ok(())
    }

    fn newest_version(&self) -> u32 {
        self.summary.versions.keys().copied().max().unwrap_or(0)
    }

    /// Both versions score the same labelled payments of days that neither has seen.
    pub async fn compare(&mut self) -> Result<()> {
        let newest = self.newest_version();
        let from = self.retrained_from;
        self.days_until(from + COMPARE_DAYS).await?;
        let labels_known = self.traffic.midnight(self.traffic.day + 7);
        self.traffic.send_labels(&self.fleet.api, labels_known).await?;
        self.judged().await?;
        let against = if self.sabotaged(Step::Compare) { newest } else { 1 };
        let (from, to) = (self.traffic.midnight(from).0, self.traffic.midnight(self.traffic.day).0);
        let path = format!("lines/{LINE}/versions/{newest}/compare?against={against}&from={from}&to={to}");
        let found: Value = self.ask(&path).await?;
        let (after, before) = (found["version"]["auc_roc"].as_f64(), found["against"]["auc_roc"].as_f64());
        let (Some(after), Some(before)) = (after, before) else { bail!("the comparison has no AUC: {found}") };
        let rows = found["rows"].as_u64().unwrap_or(0);
        self.summary.comparison = Some(Comparison { rows, before, after });
        self.display
            .fact(format!("{rows} later payments: version 1 has AUC {before:.3}, version {newest} has {after:.3}"));
        ensure!(after - before >= 0.05, "the old version lost only {:.3}", after - before);
        Ok(())
    }
}
