//! What devices say they run: stored if newer, and told to the rest of the hub.

use std::sync::Arc;

use cloud_hub_core::lives::Verdict;
use cloud_hub_gateway::Upward;
use tokio::sync::mpsc;
use tributary_wire::{DeviceId, Report};

use super::{Counters, Parts, clocks};
use crate::bus::HubEvent;
use crate::catalog::{alerts, devices};

pub(super) async fn run(parts: Parts, counters: Arc<Counters>, mut queue: mpsc::Receiver<Upward>) {
    while let Some(Upward { device, payload, .. }) = queue.recv().await {
        match Report::decode(&payload) {
            Ok(report) => store(&parts, &counters, device, report).await,
            Err(error) => unreadable(&parts, &device, &error.to_string()).await,
        }
    }
}

async fn store(parts: &Parts, counters: &Counters, device: DeviceId, report: Report) {
    let stored = async {
        let mut transaction = parts.catalog.write().await?;
        let (base, now) = (report.base(), parts.now());
        let verdict = devices::report(&mut transaction, &device, &report, now).await?;
        if verdict.is_news() {
            clocks::look(&mut transaction, &device, base.stamp.wall, now).await?;
        }
        transaction.commit().await?;
        Ok::<_, sqlx::Error>(verdict)
    };
    match stored.await {
        Ok(verdict) if verdict.is_news() => {
            counters.add(|c| &c.reports, 1);
            parts.bus.publish(HubEvent::Report { device, report: Arc::new(report.base().clone()) });
        }
        Ok(Verdict::Returns) => {
            let life = report.base().incarnation;
            tracing::warn!(%device, %life, "a life of the device's state that was over reports again");
        }
        Ok(_) => tracing::debug!(%device, number = report.base().number, "an old report came late"),
        // The device reports again at its interval, so nothing is lost but time.
        Err(error) => tracing::error!(%device, error = &error as &dyn std::error::Error, "a report was not stored"),
    }
}

async fn unreadable(parts: &Parts, device: &DeviceId, problem: &str) {
    tracing::warn!(%device, problem, "a report cannot be read");
    let raised = async {
        let mut transaction = parts.catalog.write().await?;
        let detail = serde_json::json!({ "problem": problem });
        let alert = alerts::Raise { kind: "unreadable-report", subject: device.as_str(), severity: "warning", detail };
        alerts::raise(&mut transaction, alert, parts.now()).await?;
        transaction.commit().await
    };
    if let Err(error) = raised.await {
        tracing::error!(%device, error = &error as &dyn std::error::Error, "an alert was not stored");
    }
}
