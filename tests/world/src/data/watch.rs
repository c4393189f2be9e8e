//! Cheap checks of what a device sends and what it is told, after every step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, ensure};
use edge_agent_core::outbox::OutboxSettings;
use tributary_wire::{AckV1, Batch, BatchBody, Incarnation, SequenceNumber, StreamName};

#[derive(Debug, Default)]
struct Stream {
    /// Left on this connection, and without a receipt.
    out: BTreeSet<u64>,
    window: u16,
    /// While the hub says hold: when it said so, or when the last batch left all the same, to ask.
    held: Option<Duration>,
    /// Whether something left in this life of the program. Before that it knows of no stream, and hears no receipt.
    known: bool,
    /// Answered for, as far as this life was told.
    through: u64,
    scattered: BTreeSet<u64>,
    /// The highest number that ever left.
    highest: u64,
}

/// What left one device in one incarnation of its state.
#[derive(Debug)]
pub struct Watch {
    incarnation: Incarnation,
    streams: BTreeMap<StreamName, Stream>,
    settings: OutboxSettings,
}

impl Watch {
    /// Nothing has left yet.
    pub fn new(incarnation: Incarnation) -> Self {
        Self { incarnation, streams: BTreeMap::new(), settings: OutboxSettings::default() }
    }

    /// Which incarnation this is of.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The highest number of a stream that ever left.
    pub fn highest(&self, stream: &str) -> u64 {
        self.streams.iter().find(|(name, _)| name.as_str() == stream).map_or(0, |(_, stream)| stream.highest)
    }

    /// A new life of the program: what it had been told is forgotten, but for what it had stored of it.
    pub fn began(&mut self) {
        for stream in self.streams.values_mut() {
            stream.known = false;
            stream.through = 0;
            stream.scattered.clear();
        }
    }

    /// A new connection: nothing is on the way.
    pub fn connected(&mut self) {
        for stream in self.streams.values_mut() {
            stream.out.clear();
            stream.window = self.settings.first_window;
            stream.held = None;
        }
    }

    /// A batch leaves. More than the window may not be on the way, nothing leaves that was answered for before, and while
    /// the hub says hold only one now and then, to ask.
    pub fn leaves(&mut self, now: Duration, message: &[u8]) -> Result<(Incarnation, StreamName, SequenceNumber)> {
        let (header, body) = Batch::decode(message)?;
        ensure!(header.incarnation == self.incarnation, "{header:?} leaves from {}", self.incarnation);
        let mut last = header.sequence;
        if header.rows == 0
            && let Some((to, _)) = BatchBody::decode(body, 0)?.gap()
        {
            last = to;
        }
        let OutboxSettings { first_window, resend_cap, .. } = self.settings;
        let stream = self
            .streams
            .entry(header.stream.clone())
            .or_insert_with(|| Stream { window: first_window, ..Stream::default() });
        let number = header.sequence.0;
        let answered = number <= stream.through || stream.scattered.contains(&number);
        ensure!(!answered, "{}: {number} leaves, and was answered for", header.stream);
        if let Some(held) = &mut stream.held {
            let waited = now.saturating_sub(*held);
            ensure!(waited >= resend_cap * 3 / 4, "{}: {number} leaves {waited:?} after hold", header.stream);
            *held = now;
        }
        if !stream.out.contains(&number) {
            let (out, window) = (stream.out.len(), stream.window);
            ensure!(out < usize::from(window.max(1)), "{}: {out} are out, the window is {window}", header.stream);
        }
        stream.known = true;
        stream.out.insert(number);
        stream.highest = stream.highest.max(last.0);
        Ok((header.incarnation, header.stream, header.sequence))
    }

    /// A receipt arrives. It may be old, but it answers for nothing that never left.
    pub fn hears(&mut self, now: Duration, ack: &AckV1) -> Result<()> {
        for news in ack.streams.iter().filter(|news| news.incarnation == self.incarnation) {
            let Some(stream) = self.streams.get_mut(&news.stream) else { continue };
            let newest = news.scattered.iter().map(|number| number.0).max().unwrap_or(0).max(news.through.0);
            let highest = stream.highest;
            ensure!(newest <= highest, "{}: {newest} is answered for, at most {highest} left", news.stream);
            if !stream.known {
                stream.window = stream.window.max(news.window);
                continue;
            }
            stream.window = news.window;
            stream.held = (news.window == 0).then_some(now);
            stream.through = stream.through.max(news.through.0);
            stream.scattered.extend(news.scattered.iter().map(|number| number.0));
            while stream.scattered.remove(&(stream.through + 1)) {
                stream.through += 1;
            }
            let (through, scattered) = (stream.through, &stream.scattered);
            stream.out.retain(|number| *number > through && !scattered.contains(number));
        }
        Ok(())
    }
}
