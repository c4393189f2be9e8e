//! Clients that ask all along, one for each device.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::agent::body;
use crate::local::Local;
use crate::package::Trained;
use crate::programs::Agent;

/// What all of them saw since the mark.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// When each device first answered with version 2.
    pub(super) serving: Vec<Option<Instant>>,
    pub(super) requests: u64,
    pub(super) dropped: u64,
    pub(super) longest: Duration,
}

/// The threads of all clients.
pub(super) struct Clients {
    stop: Arc<AtomicBool>,
    marked: Arc<AtomicBool>,
    threads: Vec<JoinHandle<anyhow::Result<Seen>>>,
}

impl Clients {
    pub(super) fn start(agents: &[Agent], trained: &Trained, pace: Duration) -> anyhow::Result<Self> {
        let (stop, marked) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let bodies: Arc<Vec<String>> = Arc::new(trained.later.iter().map(body).collect());
        let mut threads = Vec::new();
        for agent in agents {
            let local = Local::connect(&agent.socket)?;
            let (stop, marked, bodies) = (stop.clone(), marked.clone(), bodies.clone());
            let work = move || ask(local, &bodies, pace, &stop, &marked);
            threads.push(std::thread::Builder::new().stack_size(256 << 10).spawn(work)?);
        }
        Ok(Self { stop, marked, threads })
    }

    /// From now on it counts.
    pub(super) fn mark(&self) {
        self.marked.store(true, Ordering::Relaxed);
    }

    pub(super) fn stop(self) -> anyhow::Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for thread in self.threads {
            let seen = thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
            all.serving.extend(seen.serving);
            all.requests += seen.requests;
            all.dropped += seen.dropped;
            all.longest = all.longest.max(seen.longest);
        }
        Ok(all)
    }
}

fn ask(
    mut local: Local,
    bodies: &[String],
    pace: Duration,
    stop: &AtomicBool,
    marked: &AtomicBool,
) -> anyhow::Result<Seen> {
    let mut seen = Seen { serving: vec![None], ..Seen::default() };
    let mut events = bodies.iter();
    while !stop.load(Ordering::Relaxed) {
        let event = events.next().context("there are too few payments for so long an update")?;
        let counts = marked.load(Ordering::Relaxed);
        let answer = local.post("/v1/events?durable=false", event);
        if counts {
            seen.requests += 1;
            let result = answer.as_ref().ok().map(|answer| &answer.body["results"][0]);
            // Before it is marked the fallback answers, until the first package is here.
            let served = result.is_some_and(|result| result["degraded"].is_null() && result["version"].is_u64());
            seen.dropped += u64::from(!served);
            if result.is_some_and(|result| result["version"] == 2) {
                seen.serving[0].get_or_insert_with(Instant::now);
            }
        }
        // One that fails has lost its connection, and cannot go on.
        seen.longest = seen.longest.max(answer?.took.mul_f64(f64::from(u8::from(counts))));
        std::thread::sleep(pace);
    }
    Ok(seen)
}
