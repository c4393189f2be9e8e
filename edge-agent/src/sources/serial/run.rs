//! The loop of one line: bytes in, decisions of the station, events into the pipeline, answers out.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use edge_agent_core::Now;
use edge_agent_core::backoff::Backoff;
use edge_agent_core::node::{Action, RawAssembly, Station};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tributary_features::{Event, Value, vibration};
use tributary_wire::link::{Deframer, Down, Features, MAX_FRAME, Order, Outcome, RawPart, Record, Up, encode};
use tributary_wire::{EntityKey, EventId, Micros};

use super::port::{self, Line};
use super::{Ordered, Serial, SerialParts, raw};
use crate::serve::{self, Submission};

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// The status is brought up to date at least so often.
const LOOK: Duration = Duration::from_secs(1);
/// A line that takes no bytes for so long is as good as lost.
const WRITE_WITHIN: Duration = Duration::from_secs(5);
/// Seconds of 2024-01-01: order numbers count seconds from there, so that they rise over restarts of the agent.
const ORDERS_BEGIN: i64 = 1_704_067_200;

pub(super) struct Loop {
    serial: Serial,
    parts: SerialParts,
    ordered: mpsc::Receiver<Ordered>,
    replies: HashMap<u32, oneshot::Sender<Outcome>>,
    station: Station,
    raw: RawAssembly,
    /// One count of the node's converter in nm/s²; of the present session.
    count: Option<u32>,
}

/// Windows of one chunk of bytes: they share a commit.
#[derive(Default)]
struct Taken {
    records: Vec<(u32, u32)>,
    events: Vec<Event>,
    /// A window came whose unit nobody has told.
    unknown: bool,
}

impl Loop {
    pub(super) fn new(serial: Serial, parts: SerialParts, ordered: mpsc::Receiver<Ordered>) -> Self {
        let orders_from = (parts.clock.wall() / Micros::SECOND - ORDERS_BEGIN).clamp(1, i64::from(u32::MAX / 2));
        let station = Station::new(Some(serial.config.node.clone()), orders_from as u32);
        let (replies, raw) = (HashMap::new(), RawAssembly::default());
        Self { serial, parts, ordered, replies, station, raw, count: None }
    }

    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT, rand::random());
        loop {
            let config = self.serial.config.clone();
            let error = match port::open(&config.port, config.baud).await {
                Ok(line) => {
                    tracing::info!(node = config.node, port = %config.port, "the line of a sensor node is open");
                    {
                        let mut status = self.serial.status_mut();
                        (status.open, status.problem) = (true, None);
                    }
                    let error = self.serve(line).await;
                    backoff.reset();
                    error
                }
                Err(error) => error,
            };
            self.station.cut();
            {
                let mut status = self.serial.status_mut();
                (status.open, status.there) = (false, false);
                let problem = format!("{} is not open: {error}", config.port);
                if status.problem.as_ref() != Some(&problem) {
                    tracing::warn!(node = config.node, %error, "the line of a sensor node is lost");
                    status.problem = Some(problem);
                }
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    fn now(&self) -> Now {
        Now { wall: Micros(self.parts.clock.wall()), monotonic: Duration::from_micros(self.parts.clock.monotonic()) }
    }

    /// Works until the line is lost.
    async fn serve(&mut self, mut line: Box<dyn Line>) -> io::Error {
        let (mut deframer, mut bytes) = (Deframer::default(), [0; 1024]);
        loop {
            let now = self.now();
            let wait = self.station.next_wake().map_or(LOOK, |wake| wake.saturating_sub(now.monotonic)).min(LOOK);
            let served = tokio::select! {
                read = line.read(&mut bytes) => match read {
                    Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(count) => self.bytes(&mut line, &mut deframer, &bytes[..count]).await,
                    Err(error) => Err(error),
                },
                Some((order, reply)) = self.ordered.recv() => {
                    self.replies.retain(|_, reply| !reply.is_closed());
                    self.replies.insert(self.station.order(order), reply);
                    Ok(())
                }
                () = tokio::time::sleep(wait) => Ok(()),
            };
            let served = match served {
                Ok(()) => self.send_due(&mut line).await,
                Err(error) => Err(error),
            };
            if let Err(error) = served {
                return error;
            }
            self.note();
        }
    }

    async fn send_due(&mut self, line: &mut Box<dyn Line>) -> io::Result<()> {
        for message in self.station.due(self.now()) {
            send(line, &message).await?;
        }
        Ok(())
    }

    fn note(&self) {
        let (counts, now) = (self.station.counts(), self.now());
        let mut status = self.serial.status_mut();
        status.there = self.station.is_there(now);
        status.clock_error_us = self.station.clock_error();
        (status.lost, status.repeated, status.strange) = (counts.lost, counts.repeated, counts.strange);
    }

    async fn bytes(&mut self, line: &mut Box<dyn Line>, deframer: &mut Deframer, bytes: &[u8]) -> io::Result<()> {
        let mut taken = Taken::default();
        for byte in bytes {
            let message = match deframer.push(*byte) {
                None => continue,
                Some(Err(_)) => Err(()),
                Some(Ok(message)) => Up::decode(message).map_err(|_| ()),
            };
            let Ok(message) = message else {
                self.serial.status_mut().damaged += 1;
                continue;
            };
            let fresh = rand::random_range(1..=u32::MAX);
            for action in self.station.heard(self.now(), message, fresh) {
                match action {
                    Action::Send(answer) => {
                        if let Down::Refused(refusal) = &answer {
                            let problem = format!("whoever is on {} was refused: {refusal:?}", self.serial.config.port);
                            self.serial.status_mut().problem = Some(problem);
                        }
                        send(line, &answer).await?;
                    }
                    Action::Begun(begun) => {
                        let (node, session) = (&begun.node, begun.session);
                        tracing::info!(node, session, resumed = begun.resumed, "a sensor node is here");
                        self.serial.status_mut().begun(session);
                        self.raw.clear();
                        self.count = None;
                        if begun.resumed {
                            // What it said of itself was heard by an agent that is gone.
                            self.station.order(Order::Report);
                        }
                    }
                    Action::About(about) => {
                        self.count = Some(about.count);
                        self.serial.status_mut().about(&about);
                    }
                    Action::Take { session, number, wall, record } => {
                        self.take(&mut taken, session, number, wall, record).await;
                    }
                    Action::Ordered { order, outcome } => {
                        if let Some(reply) = self.replies.remove(&order) {
                            // Whoever asked may have gone.
                            let _ = reply.send(outcome);
                        }
                    }
                }
            }
        }
        if taken.unknown
            && let Some(question) = self.station.who(self.now())
        {
            send(line, &question).await?;
        }
        self.submit(taken).await;
        Ok(())
    }

    async fn take(&mut self, taken: &mut Taken, session: u32, number: u32, wall: Micros, record: Record<'_>) {
        match record {
            Record::Features(features) => {
                let Some(count) = self.count else {
                    // It comes again; until then the node is asked what it is.
                    taken.unknown = true;
                    return self.station.give_back(session, number);
                };
                self.serial.status_mut().score(features.axis, features.score);
                taken.records.push((session, number));
                taken.events.push(self.event(session, number, wall, &features, count));
                return;
            }
            Record::Raw(part) => return self.raw(session, number, &part).await,
            Record::Health(health) => self.serial.status_mut().health(&health),
            Record::Crash(crash) => {
                let mut status = self.serial.status_mut();
                status.crash(&crash);
                tracing::warn!(node = status.node, crash = status.crash, "a sensor node had to start again");
            }
            Record::About(_) | Record::Done { .. } => {}
        }
        self.station.stored(session, number);
    }

    /// What is kept of this node.
    fn folder(&self) -> PathBuf {
        self.parts.folder.join(&self.serial.config.node)
    }

    /// The event that a window is: only values that the view knows, since others would have it refused.
    fn event(&self, session: u32, number: u32, time: Micros, features: &Features, count: u32) -> Event {
        let node = &self.serial.config.node;
        let view = self.parts.serving.view();
        let known = |name: &str| view.values().iter().any(|field| field.name == name);
        let values: Vec<(String, Value)> =
            vibration::values(features, count).into_iter().filter(|(name, _)| known(name)).collect();
        let id = format!("{:.40}-{session:08x}-{number}", node);
        let id = EventId::new(&id).unwrap_or_else(|_| unreachable!("a node's name and numbers make an event id: {id}"));
        Event { id, time, entities: vec![("node".into(), EntityKey::Text(node.clone()))], values }
    }

    async fn raw(&mut self, session: u32, number: u32, part: &RawPart<'_>) {
        let assembled = self.raw.part(number, part);
        for number in assembled.given_up {
            self.station.stored(session, number);
        }
        let Some(window) = assembled.whole else { return };
        let folder = self.folder().join("raw");
        let (records, most) = (window.records.clone(), self.serial.config.raw_windows);
        let kept = tokio::task::spawn_blocking(move || raw::keep(&folder, session, &window, most)).await;
        let kept = kept.map_err(io::Error::other).flatten();
        match kept {
            Ok(()) => self.serial.status_mut().raw_windows += 1,
            Err(error) => self.serial.status_mut().last_refusal = Some(format!("a raw window was not kept: {error}")),
        }
        // A full disk must not hold up the windows behind it: the node's memory is smaller still.
        for number in records {
            self.station.stored(session, number);
        }
    }

    async fn submit(&mut self, taken: Taken) {
        if taken.events.is_empty() {
            return;
        }
        let submission = Submission {
            source: self.serial.config.node.as_str().into(),
            rules: self.serial.config.rules(),
            events: taken.events,
            progress: None,
            durable: true,
        };
        match self.parts.serving.submit(submission).await {
            Ok(outcomes) => {
                for ((session, number), outcome) in taken.records.into_iter().zip(outcomes) {
                    self.station.stored(session, number);
                    let mut status = self.serial.status_mut();
                    match outcome {
                        serve::Outcome::Accepted { .. } => status.accepted += 1,
                        serve::Outcome::Duplicate { .. } => status.duplicates += 1,
                        serve::Outcome::Refused(refusal) => {
                            status.refused += 1;
                            status.last_refusal = Some(refusal.to_string());
                        }
                    }
                }
            }
            // Nothing of it was kept: the node has it and sends it again.
            Err(error) => {
                self.serial.status_mut().last_refusal = Some(error.to_string());
                for (session, number) in taken.records {
                    self.station.give_back(session, number);
                }
            }
        }
    }
}

async fn send(line: &mut Box<dyn Line>, message: &Down<'_>) -> io::Result<()> {
    let mut frame = [0; MAX_FRAME];
    let length = encode(message, &mut frame).map_err(io::Error::other)?;
    let written = tokio::time::timeout(WRITE_WITHIN, line.write_all(&frame[..length])).await;
    written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
