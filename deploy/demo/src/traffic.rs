//! Payments on their way to the agents, day by day, and their labels on their way to the hub, seven days later.
//!
//! This is the source that promise 1 speaks of: it remembers every event id that an agent said it accepted.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::iter::Peekable;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::future::try_join_all;
use hyper::Method;
use serde::{Deserialize, Serialize};
use tributary_fraud::Transaction;
use tributary_process::http::Client;
use tributary_stats::LatencySketch;
use tributary_wire::Micros;

/// Payments per request to an agent.
const CHUNK: usize = 200;
/// A request that fails is counted and sent again so often, under the same ids.
const RETRIES: u32 = 3;
/// Frauds are reported by customers; the bank knows the truth after seven days.
pub const LABEL_DELAY: i64 = 7 * Micros::DAY;

/// The stream of payments and what became of it.
pub struct Traffic {
    payments: Peekable<Box<dyn Iterator<Item = Transaction> + Send>>,
    /// First midnight of the stream.
    pub start: Micros,
    /// The day that comes next, 0 the first.
    pub day: i64,
    labels: VecDeque<Transaction>,
    per_day: Vec<u64>,
    /// Every event id that an agent accepted.
    pub accepted: HashMap<String, Answer>,
    /// Requests that failed.
    pub failed: u64,
    /// Latency of decisions as the agents measured it, in microseconds.
    pub latency: LatencySketch,
}

/// What an agent answered for one payment.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// Day of the payment.
    pub day: i64,
    /// Version that decided; 0: none.
    pub version: u32,
    /// Whether the agent fell back or missed something it needed.
    pub degraded: bool,
    /// Whether the payment was declined.
    pub declined: bool,
    /// The truth.
    pub fraud: bool,
}

/// What one day brought.
#[derive(Debug, Clone, Copy, Default)]
pub struct Day {
    /// Payments.
    pub payments: usize,
    /// Of those, frauds.
    pub frauds: usize,
}

#[derive(Serialize)]
struct Event<'a> {
    id: &'a str,
    time: i64,
    entities: BTreeMap<&'static str, i64>,
    values: BTreeMap<&'static str, f64>,
}

#[derive(Deserialize)]
struct Answers {
    results: Vec<EventAnswer>,
}

#[derive(Deserialize)]
struct EventAnswer {
    id: String,
    status: String,
    #[serde(default)]
    durable: bool,
    #[serde(default)]
    version: Option<u32>,
    #[serde(default)]
    decision: Option<bool>,
    #[serde(default)]
    degraded: serde_json::Value,
    #[serde(default)]
    latency_us: Option<u64>,
    #[serde(default)]
    error: serde_json::Value,
}

/// The event id of a payment.
fn event_id(payment: &Transaction) -> String {
    format!("tx-{}", payment.id)
}

impl Traffic {
    /// A stream whose first payment decides the first day.
    pub fn new(payments: impl Iterator<Item = Transaction> + Send + 'static) -> Result<Self> {
        let payments: Box<dyn Iterator<Item = Transaction> + Send> = Box::new(payments);
        let mut payments = payments.peekable();
        let first = payments.peek().context("there are no payments to stream")?;
        let start = Micros(first.time.day() * Micros::DAY);
        Ok(Self {
            payments,
            start,
            day: 0,
            labels: VecDeque::new(),
            per_day: Vec::new(),
            accepted: HashMap::new(),
            failed: 0,
            latency: LatencySketch::default(),
        })
    }

    /// Midnight at which day `day` begins.
    pub fn midnight(&self, day: i64) -> Micros {
        Micros(self.start.0 + day * Micros::DAY)
    }

    /// Whether payments are left.
    pub fn has_more(&mut self) -> bool {
        self.payments.peek().is_some()
    }

    /// How many payments of a day were accepted.
    pub fn payments_of(&self, day: i64) -> u64 {
        usize::try_from(day).ok().and_then(|day| self.per_day.get(day)).copied().unwrap_or(0)
    }

    /// Sends the next day's payments to the agents, then the labels that became known by its end to the hub.
    pub async fn send_day(&mut self, agents: &[Client], hub: &Client) -> Result<Day> {
        let end = self.midnight(self.day + 1);
        let mut payments = Vec::new();
        while let Some(payment) = self.payments.next_if(|payment| payment.time < end) {
            payments.push(payment);
        }
        let mut routed: Vec<Vec<&Transaction>> = vec![Vec::new(); agents.len()];
        for payment in &payments {
            routed[payment.device(agents.len())].push(payment);
        }
        let sent = agents.iter().zip(&routed).map(|(agent, payments)| send(agent, payments));
        let truth: HashMap<String, bool> = payments.iter().map(|p| (event_id(p), p.fraud)).collect();
        for (answers, failed) in try_join_all(sent).await? {
            self.failed += failed;
            answers.into_iter().try_for_each(|answer| self.note(answer, &truth))?;
        }
        let frauds = payments.iter().filter(|payment| payment.fraud).count();
        let day = Day { payments: payments.len(), frauds };
        self.per_day.push(payments.len() as u64);
        self.labels.extend(payments);
        self.send_labels(hub, end).await?;
        self.day += 1;
        Ok(day)
    }

    /// Sends the labels that are known at `now`.
    pub async fn send_labels(&mut self, hub: &Client, now: Micros) -> Result<()> {
        let mut table = String::from("event_id,label,event_time,known_at\n");
        let mut rows = 0;
        while self.labels.front().is_some_and(|payment| payment.time.0 + LABEL_DELAY <= now.0) {
            let payment = self.labels.pop_front().expect("looked at just now");
            let known = payment.time.0 + LABEL_DELAY;
            table += &format!("{},{},{},{known}\n", event_id(&payment), payment.fraud, payment.time.0);
            rows += 1;
        }
        if rows > 0 {
            let answer = hub.send(Method::POST, "/api/v1/labels", "text/csv", Bytes::from(table)).await?;
            answer.accepted().context("sending labels")?;
        }
        Ok(())
    }

    fn note(&mut self, answer: EventAnswer, truth: &HashMap<String, bool>) -> Result<()> {
        // A duplicate is the second answer to a request whose first was lost.
        if !matches!(answer.status.as_str(), "accepted" | "duplicate") || !answer.durable {
            bail!(
                "payment {} was answered {} (durable: {}) {}",
                answer.id,
                answer.status,
                answer.durable,
                answer.error
            );
        }
        if let Some(latency) = answer.latency_us {
            self.latency.record(latency);
        }
        let degraded = match &answer.degraded {
            serde_json::Value::Null => false,
            serde_json::Value::Bool(degraded) => *degraded,
            serde_json::Value::Array(marks) => !marks.is_empty(),
            _ => true,
        };
        let known = Answer {
            day: self.day,
            version: answer.version.unwrap_or(0),
            degraded,
            declined: answer.decision.unwrap_or(false),
            fraud: truth.get(&answer.id).copied().unwrap_or(false),
        };
        self.accepted.insert(answer.id, known);
        Ok(())
    }
}

/// Sends payments in order; also how many requests failed on the way.
async fn send(agent: &Client, payments: &[&Transaction]) -> Result<(Vec<EventAnswer>, u64)> {
    let (mut answers, mut failed) = (Vec::with_capacity(payments.len()), 0);
    for chunk in payments.chunks(CHUNK) {
        let ids: Vec<String> = chunk.iter().map(|payment| event_id(payment)).collect();
        let events: Vec<Event> = chunk
            .iter()
            .zip(&ids)
            .map(|(payment, id)| Event {
                id,
                time: payment.time.0,
                entities: [("customer_id", payment.customer_id), ("terminal_id", payment.terminal_id)].into(),
                values: [("amount", payment.amount)].into(),
            })
            .collect();
        let mut tries = 0;
        let answer: Answers = loop {
            match agent.call(Method::POST, "/v1/events?durable=true", &events).await {
                Ok(answer) => break answer,
                Err(error) if tries == RETRIES => return Err(error.into()),
                Err(_) => (tries, failed) = (tries + 1, failed + 1),
            }
        };
        answers.extend(answer.results);
    }
    Ok((answers, failed))
}
