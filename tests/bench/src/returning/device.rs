//! A device as light as can be: no windows and no model, but the agent's own outbox and waits, real batches, and MQTT 5 over
//! the hub's own door. Cheap enough to have a thousand in one process. The process tests use this file too.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::{Buf, BytesMut};
use edge_agent_core::backoff::Backoff;
use edge_agent_core::outbox::{Outbox, OutboxSettings};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tributary_wire::topic::{Channel, Topic};
use tributary_wire::{Ack, DeviceId, Incarnation, SequenceNumber, StreamName};

use super::messages::{STREAMS, batch, report};
use super::packets::{connect_packet, packet, publish_packet, subscribe_packet};

/// Silence after which a device says that it is there.
const PING: Duration = Duration::from_secs(30);
/// A hub that answers nothing for so long is gone.
const HANDSHAKE: Duration = Duration::from_secs(20);

/// A stream to the hub.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Opens one.
pub type Dial = Box<dyn Fn() -> Pin<Box<dyn Future<Output = anyhow::Result<Box<dyn Duplex>>> + Send>> + Send + Sync>;

/// What all devices have in common.
pub struct Plan {
    /// Where the hub listens without encryption.
    pub address: String,
    /// The first devices that come back have certificates: this is how each gets in, and it reports first.
    pub doors: Vec<Dial>,
    /// The most batches of a stream that a hub lets be in flight.
    pub most: u16,
    /// Batches of each stream that wait.
    pub batches: u64,
    /// Records in each.
    pub rows: u64,
    /// First and longest wait between attempts to connect.
    pub waits: (Duration, Duration),
    /// How patient outboxes are.
    pub outbox: OutboxSettings,
}

/// What they did, together.
#[derive(Debug, Default)]
pub struct Figures {
    /// Batches sent, repeated ones included.
    pub sent: AtomicU64,
    /// Batches that the hub acknowledged.
    pub acknowledged: AtomicU64,
    /// Receipts that said hold.
    pub held: AtomicU64,
    /// Those that let in less than the most.
    pub narrow: AtomicU64,
    /// Connections that stood.
    pub connections: AtomicU64,
    /// Attempts that failed.
    pub failed: AtomicU64,
    /// Batches of those who only report what happens now, acknowledged.
    pub live: AtomicU64,
    /// The longest that one of these took, in microseconds.
    pub live_longest: AtomicU64,
}

/// One device.
pub struct Device {
    id: DeviceId,
    plan: Arc<Plan>,
    figures: Arc<Figures>,
    outbox: Outbox,
    backoff: Backoff,
    /// By stream: the last number there is, and the number through which the hub has everything.
    streams: BTreeMap<StreamName, (u64, u64)>,
    /// One that has no backlog reports now and then: the wait between two batches, and when the last one was made.
    every: Option<(Duration, Instant)>,
    /// Which of the doors is its own, and how many reports it made.
    door: Option<usize>,
    reports: u64,
    begun: Instant,
}

impl Device {
    /// One with a backlog in every stream.
    pub fn returning(number: usize, plan: &Arc<Plan>, figures: &Arc<Figures>) -> anyhow::Result<Self> {
        let device = Self::new(&format!("back-{number}"), plan.batches, &STREAMS, None, plan, figures)?;
        Ok(Self { door: (number < plan.doors.len()).then_some(number), ..device })
    }

    /// One without, that reports something so often.
    pub fn live(number: usize, every: Duration, plan: &Arc<Plan>, figures: &Arc<Figures>) -> anyhow::Result<Self> {
        Self::new(&format!("live-{number}"), 0, &STREAMS[..1], Some((every, Instant::now())), plan, figures)
    }

    fn new(
        name: &str,
        last: u64,
        streams: &[&str],
        every: Option<(Duration, Instant)>,
        plan: &Arc<Plan>,
        figures: &Arc<Figures>,
    ) -> anyhow::Result<Self> {
        let id = DeviceId::new(name)?;
        let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut outbox = Outbox::new(Incarnation(1), plan.outbox, seed);
        let mut own = BTreeMap::new();
        for stream in streams {
            let stream = StreamName::new(stream)?;
            outbox.add_stream(stream.clone());
            own.insert(stream, (last, 0));
        }
        let backoff = Backoff::new(plan.waits.0, plan.waits.1, seed.rotate_left(32));
        let (plan, figures, begun) = (plan.clone(), figures.clone(), Instant::now());
        Ok(Self { id, plan, figures, outbox, backoff, streams: own, every, door: None, reports: 0, begun })
    }

    /// Lives until the end is told; one with a backlog says through `done` when the hub has all of it, and stays. The
    /// number of the last batch that a live one sent and had acknowledged.
    pub async fn run(mut self, done: tokio::sync::mpsc::Sender<DeviceId>, mut end: watch::Receiver<bool>) -> u64 {
        let mut told = false;
        while !self.is_over(&end) {
            let ended = tokio::select! {
                ended = self.connection(&done, &mut told, end.clone()) => ended,
                _ = end.wait_for(|end| *end), if self.every.is_none() => break,
            };
            self.outbox.disconnected();
            if ended.is_err() {
                self.figures.failed.fetch_add(1, Ordering::Relaxed);
            }
            if !self.is_over(&end) {
                tokio::time::sleep(self.backoff.next_wait()).await;
            }
        }
        self.streams.values().map(|(last, _)| *last).max().unwrap_or(0)
    }

    /// A live one first brings to an end what it has begun.
    fn is_over(&self, end: &watch::Receiver<bool>) -> bool {
        *end.borrow() && (self.every.is_none() || self.is_empty())
    }

    fn is_empty(&self) -> bool {
        self.streams.values().all(|(last, through)| through == last)
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    async fn connection(
        &mut self,
        done: &tokio::sync::mpsc::Sender<DeviceId>,
        told: &mut bool,
        end: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let mut stream = tokio::time::timeout(HANDSHAKE, self.connect()).await.context("no answer in time")??;
        self.figures.connections.fetch_add(1, Ordering::Relaxed);
        self.outbox.connected();
        let topic = Topic::new(self.id.clone(), Channel::Batch).to_string();
        let (mut buffer, mut packet_id) = (BytesMut::new(), 1_u16);
        if self.door.is_some() {
            self.reports += 1;
            let topic = Topic::new(self.id.clone(), Channel::Report).to_string();
            stream.write_all(&publish_packet(packet_id, &topic, &report(self.reports))).await?;
            packet_id += 1;
        }
        loop {
            self.make(&end);
            let mut out = Vec::new();
            let (now, streams) = (self.now(), &self.streams);
            let after = |stream: &StreamName, after: SequenceNumber| {
                let last = streams.get(stream).map_or(0, |(last, _)| *last);
                Ok::<_, Infallible>((after.0 < last).then_some(SequenceNumber(after.0 + 1)))
            };
            while let Some((stream, number)) = self.outbox.next(now, after)? {
                out.extend(publish_packet(packet_id, &topic, &batch(&self.plan, &self.id, &stream, number.0)));
                packet_id = packet_id.checked_add(1).unwrap_or(1);
                self.figures.sent.fetch_add(1, Ordering::Relaxed);
            }
            stream.write_all(&out).await?;
            if self.every.is_none() && self.is_empty() && !*told {
                *told = true;
                let _ = done.send(self.id.clone()).await;
            }
            if self.is_over(&end) {
                return Ok(());
            }
            let due = self.outbox.next_wake().map(|wake| wake.saturating_sub(self.now()));
            let next = self.every.map(|(every, made)| every.saturating_sub(made.elapsed()));
            let wait = due.into_iter().chain(next).min().unwrap_or(PING);
            tokio::select! {
                read = stream.read_buf(&mut buffer) => {
                    ensure!(read? > 0, "the hub closed the connection");
                    while let Some((first, body)) = packet(&mut buffer)? {
                        if let Some(answer) = self.hear(first, &body)? {
                            stream.write_all(&answer).await?;
                        }
                    }
                }
                () = tokio::time::sleep(wait) => {
                    if due.is_none() && next.is_none() {
                        stream.write_all(&[0xc0, 0]).await?;
                    }
                }
            }
        }
    }

    /// Makes what a live device reports, one batch at a time.
    fn make(&mut self, end: &watch::Receiver<bool>) {
        let is_empty = self.is_empty();
        let Some((every, made)) = &mut self.every else { return };
        if is_empty && made.elapsed() >= *every && !*end.borrow() {
            *made = Instant::now();
            self.streams.values_mut().for_each(|(last, _)| *last += 1);
        }
    }

    async fn connect(&self) -> anyhow::Result<Box<dyn Duplex>> {
        let mut stream: Box<dyn Duplex> = match self.door {
            Some(own) => (self.plan.doors[own])().await?,
            None => {
                let stream = TcpStream::connect(&self.plan.address).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        };
        stream.write_all(&connect_packet(self.id.as_str())).await?;
        stream.write_all(&subscribe_packet(&Topic::down_filter(&self.id))).await?;
        let mut buffer = BytesMut::new();
        for (expected, what) in [(2, "CONNACK"), (9, "SUBACK")] {
            let (first, body) = loop {
                if let Some(packet) = packet(&mut buffer)? {
                    break packet;
                }
                ensure!(stream.read_buf(&mut buffer).await? > 0, "the hub closed the connection");
            };
            ensure!(first >> 4 == expected, "expected a {what}, got a packet of type {}", first >> 4);
            let code = if expected == 2 { body.get(1) } else { body.last() };
            ensure!(code.is_some_and(|code| *code < 0x80), "the hub refused: {code:?} in its {what}");
        }
        Ok(stream)
    }

    /// Takes in a packet; what to answer.
    fn hear(&mut self, first: u8, body: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
        match first >> 4 {
            3 => {}
            14 => bail!("the hub said goodbye: {body:?}"),
            _ => return Ok(None),
        }
        let mut rest = body;
        ensure!(rest.len() >= 2, "a PUBLISH without a topic");
        let topic = usize::from(rest.get_u16());
        ensure!(rest.len() >= topic + 3, "a PUBLISH cut short");
        let channel = Topic::parse(std::str::from_utf8(&rest[..topic])?).map(|topic| topic.channel);
        rest.advance(topic);
        let id = rest.get_u16();
        let properties = usize::from(rest.get_u8());
        ensure!(rest.len() >= properties && properties < 0x80, "a PUBLISH with strange properties");
        rest.advance(properties);
        if channel == Some(Channel::Ack) {
            let Ack::V1(ack) = Ack::decode(rest)?;
            let held = ack.streams.iter().filter(|stream| stream.window == 0).count();
            self.figures.held.fetch_add(held as u64, Ordering::Relaxed);
            let narrow = ack.streams.iter().filter(|stream| stream.window < self.plan.most).count();
            self.figures.narrow.fetch_add(narrow as u64, Ordering::Relaxed);
            for freed in self.outbox.acknowledged(self.now(), &ack) {
                ensure!(freed.quarantined.is_empty(), "the hub put batches aside: {:?}", freed.quarantined);
                if let Some((_, through)) = self.streams.get_mut(&freed.stream) {
                    let news = freed.through.0.saturating_sub(*through);
                    self.figures.acknowledged.fetch_add(news, Ordering::Relaxed);
                    *through = freed.through.0.max(*through);
                    if let Some((_, made)) = self.every.filter(|_| news > 0) {
                        self.figures.live.fetch_add(news, Ordering::Relaxed);
                        let took = made.elapsed().as_micros() as u64;
                        self.figures.live_longest.fetch_max(took, Ordering::Relaxed);
                    }
                }
            }
        }
        Ok(Some([&[0x40, 2][..], &id.to_be_bytes()].concat()))
    }
}
