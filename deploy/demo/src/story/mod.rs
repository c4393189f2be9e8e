//! The story: what happens, in order, and what must be true after each step.

mod begin;
mod change;
mod end;
mod hub;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tributary_fraud::{Generator, GeneratorConfig, Transaction};
use tributary_process::shutdown::Shutdown;

use crate::display::{Display, thousands};
use crate::fleet::Fleet;
use crate::options::Options;
use crate::step::Step;
use crate::summary::{Latency, Summary};
use crate::traffic::{Day, Traffic};

/// Days of payments before there is a model.
const STREAM_DAYS: i64 = 35;
/// The first day of the new fraud pattern; until then the first model decides.
const CHANGE_DAY: i64 = 49;
/// The story has no payments after this day.
const DAYS: u32 = 150;
/// How many later days both versions are compared on.
const COMPARE_DAYS: i64 = 10;
const AGENTS: usize = 3;

/// How long a step may take before the story breaks off: generous, because the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(300);
/// The same for a step that is broken on purpose and therefore never ends by itself.
const SHORT_PATIENCE: Duration = Duration::from_secs(20);

/// Everything that the steps share.
struct Story {
    options: Options,
    display: Display,
    summary: Summary,
    fleet: Fleet,
    traffic: Traffic,
    /// When the alert that started the retraining was seen, in seconds of the story.
    alerted: f64,
    /// First day that was decided by the retrained version alone.
    retrained_from: i64,
}

/// Tells it. An error is the step that did not truly happen.
pub async fn tell(options: Options) -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let folder: PathBuf = options.keep.clone().unwrap_or(temporary.path().into());
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let traffic = Traffic::new(payments(&options)?)?;
    println!("Tributary: card fraud, from a payment on a device to the retrained model back on it.");
    println!("        Everything runs in {}", folder.display());
    let mut display = Display::start();
    let fleet = begin::start(&mut display, &options, &folder).await?;
    let summary = Summary { seed: options.seed, steps: vec![Step::Start], ..Summary::default() };
    let mut story = Story { options, display, summary, fleet, traffic, alerted: 0.0, retrained_from: 0 };
    let outcome = story.steps().await;
    story.note_resources();
    if let Some(path) = &story.options.summary {
        std::fs::write(path, serde_json::to_vec_pretty(&story.summary)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    outcome?;
    story.close();
    if !story.options.once {
        story.stay().await?;
    }
    Ok(())
}

fn payments(options: &Options) -> Result<Box<dyn Iterator<Item = Transaction> + Send>> {
    if let Some(path) = &options.transactions {
        let mut payments = tributary_fraud::load_parquet(path)?;
        let mut customers: Vec<i64> = payments.iter().map(|payment| payment.customer_id).collect();
        customers.sort_unstable();
        customers.dedup();
        let last = customers.get(options.customers.saturating_sub(1)).or(customers.last()).copied().unwrap_or(0);
        payments.retain(|payment| payment.customer_id <= last);
        return Ok(Box::new(payments.into_iter()));
    }
    let changes = !options.no_change && options.sabotage != Some(Step::Detect);
    let change_day = changes.then_some(CHANGE_DAY as u32);
    let config = GeneratorConfig { seed: options.seed, days: DAYS, change_day, ..GeneratorConfig::default() };
    Ok(Box::new(Generator::new(config)))
}

impl Story {
    async fn steps(&mut self) -> Result<()> {
        self.step(Step::Stream, Self::stream).await?;
        self.step(Step::Train, Self::train).await?;
        self.step(Step::Ship, Self::ship).await?;
        self.step(Step::Decide, Self::decide).await?;
        if self.options.transactions.is_none() {
            if self.options.no_change {
                self.step(Step::Calm, Self::stay_calm).await?;
            } else {
                self.step(Step::Detect, Self::detect).await?;
                self.step(Step::Retrain, Self::retrain).await?;
                self.step(Step::Waves, Self::waves).await?;
                self.step(Step::Compare, Self::compare).await?;
                self.step(Step::BadRelease, Self::bad_release).await?;
            }
        }
        self.step(Step::Reconcile, Self::reconcile).await
    }

    async fn step(&mut self, step: Step, act: impl AsyncFnOnce(&mut Self) -> Result<()>) -> Result<()> {
        self.display.step(step);
        act(self).await.with_context(|| format!("step {:?} did not happen", step.title()))?;
        self.fleet.check()?;
        self.summary.steps.push(step);
        Ok(())
    }

    fn sabotaged(&self, step: Step) -> bool {
        self.options.sabotage == Some(step)
    }

    fn patience(&self) -> Duration {
        if self.options.sabotage.is_some() { SHORT_PATIENCE } else { PATIENCE }
    }

    /// One more day of payments goes to the agents, and the labels that became known to the hub.
    async fn day(&mut self) -> Result<Day> {
        let day = self.traffic.day;
        self.display.progress(format!("day {day}: {} payments so far", thousands(self.traffic.accepted.len() as u64)));
        self.traffic.send_day(&self.fleet.locals, &self.fleet.api).await
    }

    async fn days_until(&mut self, day: i64) -> Result<Day> {
        let mut sum = Day::default();
        while self.traffic.day < day && self.traffic.has_more() {
            let day = self.day().await?;
            sum.payments += day.payments;
            sum.frauds += day.frauds;
        }
        Ok(sum)
    }

    fn note_resources(&mut self) {
        let summary = &mut self.summary;
        summary.hub_memory_bytes = self.fleet.hub.peak_memory();
        summary.agent_memory_bytes = self.fleet.agents.iter().map(|agent| agent.peak_memory()).max().unwrap_or(0);
        let quantile = |q| self.traffic.latency.quantile(q).map_or(0, |value| value.round() as u64);
        summary.decision_latency_us = Latency { p50: quantile(0.5), p99: quantile(0.99) };
        summary.seconds = self.display.elapsed();
    }

    fn close(&self) {
        let summary = &self.summary;
        let megabytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!("\n        Summary");
        println!(
            "        accepted {}, in the lake {}, dropped {}, doubled {}",
            thousands(summary.accepted),
            thousands(summary.in_lake),
            summary.dropped,
            summary.duplicated
        );
        for (version, found) in &summary.versions {
            println!(
                "        version {version}: AUC {:.3} as f32, {:.3} as int8; serves {}",
                found.auc_f32, found.auc_int8, found.serves
            );
        }
        let latency = summary.decision_latency_us;
        println!("        event to decision inside the agent: p50 {} us, p99 {} us", latency.p50, latency.p99);
        println!(
            "        peak memory: hub {:.0} MiB, one agent {:.0} MiB (debug build unless --release)",
            megabytes(summary.hub_memory_bytes),
            megabytes(summary.agent_memory_bytes)
        );
        println!("        told in {:.0} s", summary.seconds);
    }

    /// Leaves everything running for the person to look around.
    async fn stay(&mut self) -> Result<()> {
        let socket = self.fleet.locals[0].endpoint().to_string();
        println!("\n        Look around while it runs (Ctrl-C ends it):");
        for (name, value) in self.fleet.access() {
            println!("        export {name}={value}");
        }
        println!("        cargo run -- hub line story {}", crate::fleet::LINE);
        println!("        cargo run -- hub rollout list");
        println!("        cargo run -- hub audit list");
        println!("        cargo run -- hub device command edge-1 logs --wait");
        println!("        cargo run -- agent status --agent {socket}");
        println!("        {}, with the token as password", self.fleet.api.endpoint());
        Shutdown::on_signal()?.given().await;
        Ok(())
    }
}
