//! The loop of one line: bytes in, decisions of the station, events into the pipeline, answers out.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use edge_agent_core::Now;
use edge_agent_core::backoff::Backoff;
use edge_agent_core::node::{Action, RawAssembly, Station};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tributary_wire::Micros;
use tributary_wire::link::{Deframer, Down, MAX_FRAME, Order, Outcome, Up, encode};

use super::port::{self, Line};
use super::records::Taken;
use super::{Serial, SerialParts, Wanted, images};

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// The status is brought up to date at least so often.
const LOOK: Duration = Duration::from_secs(1);
/// A line that takes no bytes for so long is as good as lost.
const WRITE_WITHIN: Duration = Duration::from_secs(5);
/// Seconds of 2024-01-01: order numbers count seconds from there, so that they rise over restarts of the agent.
const ORDERS_BEGIN: i64 = 1_704_067_200;

pub(super) struct Loop {
    pub(super) serial: Serial,
    pub(super) parts: SerialParts,
    wanted: mpsc::Receiver<Wanted>,
    replies: HashMap<u32, oneshot::Sender<Outcome>>,
    pub(super) station: Station,
    pub(super) raw: RawAssembly,
    /// One count of the node's converter in nm/s²; of the present session.
    pub(super) count: Option<u32>,
}

impl Loop {
    pub(super) fn new(serial: Serial, parts: SerialParts, wanted: mpsc::Receiver<Wanted>) -> Self {
        let orders_from = (parts.clock.wall() / Micros::SECOND - ORDERS_BEGIN).clamp(1, i64::from(u32::MAX / 2));
        let station = Station::new(Some(serial.config.node.clone()), orders_from as u32);
        let (replies, raw) = (HashMap::new(), RawAssembly::default());
        Self { serial, parts, wanted, replies, station, raw, count: None }
    }

    pub(super) async fn run(mut self) {
        for parcel in images::kept(&self.serial.config, &self.serial.folder) {
            self.station.bring(parcel);
        }
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
                Some(wanted) = self.wanted.recv() => {
                    match wanted {
                        Wanted::Order(order, reply) => {
                            self.replies.retain(|_, reply| !reply.is_closed());
                            self.replies.insert(self.station.order(order), reply);
                        }
                        Wanted::Image(parcel) => self.station.bring(parcel),
                    }
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
        let now = self.now();
        for message in self.station.due(now) {
            send(line, &message).await?;
        }
        Ok(())
    }

    fn note(&self) {
        let (counts, now) = (self.station.counts(), self.now());
        let mut status = self.serial.status_mut();
        status.there = self.station.is_there(now);
        status.clock_error_us = self.station.clock_error();
        status.bringing(self.station.progress());
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
                self.station.damaged(self.now());
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
                        let mut status = self.serial.status_mut();
                        status.heard();
                        status.about(&about);
                    }
                    Action::Holds(holds) => self.serial.status_mut().holds(&holds),
                    Action::Delivered(delivered) => {
                        images::forget(&self.serial.folder, &delivered);
                        let mut status = self.serial.status_mut();
                        status.delivered(&delivered);
                        let (node, kind, version) = (&status.node, delivered.kind, delivered.version);
                        tracing::info!(node, ?kind, version, end = ?delivered.end, "an image for a sensor node is done with");
                    }
                    Action::Take { session, number, wall, record } => {
                        self.serial.status_mut().heard();
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
}

async fn send(line: &mut Box<dyn Line>, message: &Down<'_>) -> io::Result<()> {
    let mut frame = [0; MAX_FRAME];
    let length = encode(message, &mut frame).map_err(io::Error::other)?;
    let written = tokio::time::timeout(WRITE_WITHIN, line.write_all(&frame[..length])).await;
    written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
