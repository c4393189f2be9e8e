//! A source that never stops to tell an agent what happens, and remembers what it was promised; and the count at the end.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tributary_process::http::Client;

use crate::process::{Hub, PATIENCE};

/// What every accepted event leaves in the lake.
pub const STREAMS: [&str; 2] = ["events", "observations"];
/// Events in one request.
const AT_ONCE: usize = 5;

/// Such a source. An event that is not answered as durable is told again, as often as it takes.
pub struct Source {
    name: String,
    task: JoinHandle<HashSet<String>>,
    sent: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    problem: Arc<Mutex<Option<String>>>,
}

/// A payment of the fraud system.
pub fn payment(source: &str, number: usize) -> Value {
    json!({"id": format!("{source}-{number}"), "time": 1_767_571_200_000_000_i64 + number as i64 * 1_000_000,
           "entities": {"customer_id": number % 7, "terminal_id": number % 3}, "values": {"amount": 12.5}})
}

impl Source {
    /// Begins to tell this agent.
    pub fn start(name: &str, agent: &Client) -> Self {
        let (sent, stop, problem) = (Arc::default(), Arc::default(), Arc::default());
        let source = Self { name: name.into(), task: tokio::spawn(async { HashSet::new() }), sent, stop, problem };
        let task = tokio::spawn(feed(
            source.name.clone(),
            agent.clone().with_timeout(Duration::from_secs(20)),
            source.sent.clone(),
            source.stop.clone(),
            source.problem.clone(),
        ));
        Self { task, ..source }
    }

    /// Events that were promised so far.
    pub fn promised(&self) -> usize {
        assert!(!self.task.is_finished(), "the agent refused events");
        self.sent.load(Ordering::Relaxed)
    }

    /// Why the last request was not answered as it should be, until one is.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap().clone()
    }

    /// Waits until so many more were promised.
    pub async fn more(&self, events: usize) {
        let due = self.promised() + events;
        let more = tributary_demo::wait::until("events are accepted", PATIENCE, async || {
            let found = self.promised();
            Ok(if found >= due { Ok(()) } else { Err(format!("{found} of {due}: {:?}", self.problem())) })
        });
        more.await.unwrap();
    }

    /// Waits until some more of what is promised from now on is in the lake.
    pub async fn goes_on(&self, hub: &mut Hub, events: usize) {
        let (lake, due) = (hub.lake(), self.promised() + events);
        let name = format!("{}-", self.name);
        hub.process
            .until("telemetry comes", async || {
                self.promised();
                let counts =
                    tributary_demo::recount::event_ids(&lake, STREAMS[0]).map_err(|error| error.to_string())?;
                let found = counts.keys().filter(|id| id.starts_with(&name)).count();
                if found >= due { Ok(()) } else { Err(format!("{found} of {due}: {:?}", self.problem())) }
            })
            .await;
    }

    /// Tells no more; all that it was promised.
    pub async fn stop(self) -> HashSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

async fn feed(
    name: String,
    agent: Client,
    sent: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    problem: Arc<Mutex<Option<String>>>,
) -> HashSet<String> {
    let mut accepted = HashSet::new();
    while !stop.load(Ordering::Relaxed) {
        let first = sent.load(Ordering::Relaxed);
        let events: Vec<Value> = (first..first + AT_ONCE).map(|number| payment(&name, number)).collect();
        let answer = agent.call::<Value>(Method::POST, "/v1/events?durable=true", &events).await;
        let pause = match answer {
            Ok(answer) => {
                for result in answer["results"].as_array().unwrap() {
                    assert!(matches!(result["status"].as_str(), Some("accepted" | "duplicate")), "{result}");
                    assert_eq!(result["durable"], true, "{result}");
                    accepted.insert(result["id"].as_str().unwrap().to_owned());
                }
                sent.fetch_add(AT_ONCE, Ordering::Relaxed);
                *problem.lock().unwrap() = None;
                Duration::from_millis(50)
            }
            // Not there, or not able: it may or may not have been accepted.
            Err(error) => {
                let status = error.status();
                assert!(status.is_none_or(|status| status.is_server_error()), "an agent refused payments: {error}");
                *problem.lock().unwrap() = Some(error.to_string());
                Duration::from_millis(200)
            }
        };
        tokio::time::sleep(pause).await;
    }
    accepted
}

/// Waits until the lake holds what was promised, and then fails unless it is exactly that: all of it, once, and nothing else.
pub async fn reconcile(hub: &mut Hub, promised: &HashSet<String>) {
    assert!(!promised.is_empty());
    let lake = hub.lake();
    for stream in STREAMS {
        hub.process
            .until(&format!("all {stream} are in the lake"), async || {
                let counts = tributary_demo::recount::event_ids(&lake, stream).map_err(|error| error.to_string())?;
                let missing: Vec<_> = promised.iter().filter(|id| !counts.contains_key(*id)).collect();
                let few = &missing[..missing.len().min(3)];
                let told = format!("{} of {} are missing, such as {few:?}", missing.len(), promised.len());
                if missing.is_empty() { Ok(()) } else { Err(told) }
            })
            .await;
        let counts = tributary_demo::recount::event_ids(&lake, stream).unwrap();
        let doubled: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).take(3).collect();
        assert!(doubled.is_empty(), "{stream}: more than once: {doubled:?}");
        assert_eq!(counts.len(), promised.len(), "{stream}: something came that was never promised");
    }
}
