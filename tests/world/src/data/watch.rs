//! Cheap checks of what a device sends and what it is told, after every step.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use edge_agent_core::outbox::OutboxSettings;
use tributary_wire::{AckV1, Batch, BatchBody, Incarnation, SequenceNumber, StreamName};

#[derive(Debug, Default)]
struct Stream {
    /// Left on this connection, and without a receipt.
    out: BTreeSet<u64>,
    window: u16,
    /// Answered for, over all connections.
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

    /// A new connection: nothing is on the way.
    pub fn connected(&mut self) {
        for stream in self.streams.values_mut() {
            stream.out.clear();
            stream.window = self.settings.first_window;
        }
    }

    /// A batch leaves. More than the window may not be on the way, and nothing leaves that was answered for before.
    pub fn leaves(&mut self, message: &[u8]) -> Result<(Incarnation, StreamName, SequenceNumber)> {
        let (header, body) = Batch::decode(message)?;
        ensure!(header.incarnation == self.incarnation, "{header:?} leaves from {}", self.incarnation);
        let mut last = header.sequence;
        if header.rows == 0
            && let Some((to, _)) = BatchBody::decode(body, 0)?.gap()
        {
            last = to;
        }
        let first_window = self.settings.first_window;
        let stream = self
            .streams
            .entry(header.stream.clone())
            .or_insert_with(|| Stream { window: first_window, ..Stream::default() });
        let number = header.sequence.0;
        if !stream.out.contains(&number) {
            let (out, window) = (stream.out.len(), stream.window);
            ensure!(out < usize::from(window.max(1)), "{}: {out} are out, the window is {window}", header.stream);
        }
        stream.out.insert(number);
        stream.highest = stream.highest.max(last.0);
        Ok((header.incarnation, header.stream, header.sequence))
    }

    /// A receipt arrives. It may be old, but it answers for nothing that never left.
    pub fn hears(&mut self, ack: &AckV1) -> Result<()> {
        for news in ack.streams.iter().filter(|news| news.incarnation == self.incarnation) {
            let Some(stream) = self.streams.get_mut(&news.stream) else { continue };
            let newest = news.scattered.iter().map(|number| number.0).max().unwrap_or(0).max(news.through.0);
            let highest = stream.highest;
            ensure!(newest <= highest, "{}: {newest} is answered for, at most {highest} left", news.stream);
            stream.window = news.window;
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
