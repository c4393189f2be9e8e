//! Which batch leaves next, and which may be forgotten.
//!
//! The batches themselves lie in the device's store; here are only numbers. Within a stream batches leave in order,
//! at most a *window* of them unacknowledged; streams take turns. A batch that got no receipt in time leaves again.
//! Only the hub's own receipt frees a batch: that the network delivered it proves nothing about a disk.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tributary_wire::{AckV1, Incarnation, SequenceNumber, StreamAck, StreamName};

use crate::chance::Chance;

/// How patient the outbox is.
#[derive(Debug, Clone, Copy)]
pub struct OutboxSettings {
    /// Batches of one stream in flight before the hub's first word on this connection.
    pub first_window: u16,
    /// Wait for a receipt before the first resend; doubled with every further one.
    pub resend_after: Duration,
    /// The longest such wait.
    pub resend_cap: Duration,
}

impl Default for OutboxSettings {
    fn default() -> Self {
        Self { first_window: 8, resend_after: Duration::from_secs(5), resend_cap: Duration::from_secs(60) }
    }
}

/// What a receipt allows the store to forget: everything through a number, and some beyond it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freed {
    /// Of which stream.
    pub stream: StreamName,
    /// Everything up to and including this one.
    pub through: SequenceNumber,
    /// These as well.
    pub scattered: Vec<SequenceNumber>,
    /// Batches the hub put aside in quarantine with this receipt.
    pub quarantined: Vec<SequenceNumber>,
}

#[derive(Debug)]
struct Flight {
    due: Duration,
    attempts: u32,
}

#[derive(Debug)]
struct Stream {
    through: SequenceNumber,
    scattered: BTreeSet<SequenceNumber>,
    in_flight: BTreeMap<SequenceNumber, Flight>,
    /// The last number sent on this connection, so that the next one is looked for behind it.
    sent: SequenceNumber,
    window: u16,
    /// While the hub says hold: when to try one batch all the same, in case its next word was lost.
    probe: Option<Duration>,
}

/// The numbers of all streams of a device.
#[derive(Debug)]
pub struct Outbox {
    incarnation: Incarnation,
    settings: OutboxSettings,
    streams: BTreeMap<StreamName, Stream>,
    /// The stream that had the last turn.
    last: Option<StreamName>,
    connected: bool,
    chance: Chance,
}

impl Outbox {
    /// The outbox of one incarnation of a device's state.
    pub fn new(incarnation: Incarnation, settings: OutboxSettings, seed: u64) -> Self {
        let chance = Chance::new(seed);
        Self { incarnation, settings, streams: BTreeMap::new(), last: None, connected: false, chance }
    }

    /// A stream exists. Calling it again changes nothing.
    pub fn add_stream(&mut self, name: StreamName) {
        let window = self.settings.first_window;
        self.streams.entry(name).or_insert_with(|| Stream {
            through: SequenceNumber(0),
            scattered: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            sent: SequenceNumber(0),
            window,
            probe: None,
        });
    }

    /// A connection stands. What was in flight on the last one may be lost, so everything without a receipt leaves again.
    pub fn connected(&mut self) {
        self.connected = true;
        for stream in self.streams.values_mut() {
            stream.in_flight.clear();
            stream.sent = stream.through;
            stream.window = self.settings.first_window;
            stream.probe = None;
        }
    }

    /// The connection is gone: nothing leaves.
    pub fn disconnected(&mut self) {
        self.connected = false;
    }

    /// The batch to publish now, if any. `after` finds the number of the first stored batch of a stream behind a
    /// number. Call again until it gives nothing, then sleep until [`Outbox::next_wake`] or until the store grew.
    pub fn next<E>(
        &mut self,
        now: Duration,
        mut after: impl FnMut(&StreamName, SequenceNumber) -> Result<Option<SequenceNumber>, E>,
    ) -> Result<Option<(StreamName, SequenceNumber)>, E> {
        if !self.connected {
            return Ok(None);
        }
        // Turns: the streams behind the last one first, then those before it.
        let names: Vec<StreamName> = {
            let (before, behind): (Vec<_>, Vec<_>) =
                self.streams.keys().cloned().partition(|name| self.last.as_ref().is_some_and(|last| name <= last));
            behind.into_iter().chain(before).collect()
        };
        for name in names {
            let stream = self.streams.get_mut(&name).expect("names come from the map");
            let Some(sequence) = stream.next(now, |sequence| after(&name, sequence))? else { continue };
            let attempts = stream.in_flight.get(&sequence).map_or(0, |flight| flight.attempts + 1);
            let wait = wait(&self.settings, attempts, &mut self.chance);
            stream.in_flight.insert(sequence, Flight { due: now + wait, attempts });
            stream.sent = stream.sent.max(sequence);
            if stream.window == 0 {
                stream.probe = Some(now + wait);
            }
            self.last = Some(name.clone());
            return Ok(Some((name, sequence)));
        }
        Ok(None)
    }

    /// A receipt came. Returns what the store may forget; a receipt of another incarnation or of a stream nobody
    /// knows frees nothing. Receipts unite: an old or repeated one takes nothing back.
    pub fn acknowledged(&mut self, now: Duration, ack: &AckV1) -> Vec<Freed> {
        let news = ack.streams.iter().filter(|news| news.incarnation == self.incarnation);
        let mut freed = Vec::new();
        for news in news {
            let Some(stream) = self.streams.get_mut(&news.stream) else { continue };
            stream.unite(news);
            stream.window = news.window;
            stream.probe = (news.window == 0).then(|| now + wait(&self.settings, 0, &mut self.chance));
            freed.push(Freed {
                stream: news.stream.clone(),
                through: stream.through,
                scattered: stream.scattered.iter().copied().collect(),
                quarantined: news.quarantined.clone(),
            });
        }
        freed
    }

    /// When something becomes due without any further input.
    pub fn next_wake(&self) -> Option<Duration> {
        if !self.connected {
            return None;
        }
        let due = |stream: &Stream| match stream.probe {
            Some(probe) => Some(probe),
            None => stream.in_flight.values().map(|flight| flight.due).min(),
        };
        self.streams.values().filter_map(due).min()
    }

    /// Batches that left and have no receipt yet.
    pub fn in_flight(&self) -> usize {
        self.streams.values().map(|stream| stream.in_flight.len()).sum()
    }
}

/// Doubling waits, each 75 % to 125 % of its nominal length so that a fleet does not resend in step.
fn wait(settings: &OutboxSettings, attempts: u32, chance: &mut Chance) -> Duration {
    let nominal = settings.resend_after.saturating_mul(1 << attempts.min(16)).min(settings.resend_cap);
    chance.between(nominal * 3 / 4, nominal * 5 / 4)
}

impl Stream {
    fn next<E>(
        &mut self,
        now: Duration,
        mut after: impl FnMut(SequenceNumber) -> Result<Option<SequenceNumber>, E>,
    ) -> Result<Option<SequenceNumber>, E> {
        if let Some(probe) = self.probe {
            // Hold. One batch, the oldest, goes out at the probe's time.
            return if now < probe { Ok(None) } else { after(self.through) };
        }
        if let Some(late) = self.in_flight.iter().find(|(_, flight)| flight.due <= now).map(|(number, _)| *number) {
            // The store may have replaced the batch by a gap with a lower number since; `after` finds what is there.
            let found = after(SequenceNumber(late.0.saturating_sub(1)))?;
            if found == Some(late) {
                return Ok(Some(late));
            }
            self.in_flight.remove(&late);
            self.sent = self.through;
        }
        if self.in_flight.len() >= usize::from(self.window) {
            return Ok(None);
        }
        let mut behind = self.sent;
        while let Some(found) = after(behind)? {
            if !self.scattered.contains(&found) && !self.in_flight.contains_key(&found) {
                return Ok(Some(found));
            }
            behind = found;
        }
        Ok(None)
    }

    fn unite(&mut self, news: &StreamAck) {
        self.through = self.through.max(news.through);
        self.scattered.extend(news.scattered.iter().copied());
        let mut next = SequenceNumber(self.through.0 + 1);
        while self.scattered.contains(&next) {
            self.through = next;
            next.0 += 1;
        }
        self.scattered.retain(|number| *number > self.through);
        self.sent = self.sent.max(self.through);
        self.in_flight.retain(|number, _| *number > self.through && !self.scattered.contains(number));
    }
}
