//! Which batch leaves next, and which may be forgotten.
//!
//! The batches themselves lie in the device's store; here are only numbers. Within a stream batches leave in order,
//! at most a *window* of them unacknowledged; streams take turns. A batch that got no receipt in time leaves again, and
//! what "in time" means follows from how long receipts take, as in TCP (RFC 6298): a hub with much to do gets no more of it.
//! Only the hub's own receipt frees a batch: that the network delivered it proves nothing about a disk.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tributary_wire::{AckV1, Incarnation, SequenceNumber, StreamAck, StreamName};

use crate::chance::Chance;

/// How patient the outbox is.
#[derive(Debug, Clone, Copy)]
pub struct OutboxSettings {
    /// Batches of one stream in flight before the hub's first word on this connection: few, for perhaps everybody comes
    /// back at once.
    pub first_window: u16,
    /// Batches in flight over all streams, whatever the hub would take.
    pub in_flight: usize,
    /// The shortest wait for a receipt before the first resend: longer when receipts take longer, and doubled with every
    /// further resend.
    pub resend_after: Duration,
    /// The longest such wait, and how long a stream holds without a word of the hub before it tries one batch.
    pub resend_cap: Duration,
}

impl Default for OutboxSettings {
    fn default() -> Self {
        Self {
            first_window: 1,
            in_flight: 64,
            resend_after: Duration::from_secs(5),
            resend_cap: Duration::from_secs(60),
        }
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
    /// When it left for the first time.
    left: Duration,
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
    /// Whether the last probe found nothing to send: then only a store that grew is a reason to look again.
    empty: bool,
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
    timer: Timer,
    chance: Chance,
}

impl Outbox {
    /// The outbox of one incarnation of a device's state.
    pub fn new(incarnation: Incarnation, settings: OutboxSettings, seed: u64) -> Self {
        let chance = Chance::new(seed);
        let timer = Timer::new(&settings);
        Self { incarnation, settings, streams: BTreeMap::new(), last: None, connected: false, timer, chance }
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
            empty: false,
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
            let room = self.in_flight() < self.settings.in_flight;
            let stream = self.streams.get_mut(&name).expect("names come from the map");
            let Some(sequence) = stream.next(now, room, |sequence| after(&name, sequence))? else { continue };
            let (left, attempts) =
                stream.in_flight.get(&sequence).map_or((now, 0), |flight| (flight.left, flight.attempts + 1));
            let due = now + self.timer.resend(attempts, &mut self.chance);
            stream.in_flight.insert(sequence, Flight { left, due, attempts });
            stream.sent = stream.sent.max(sequence);
            if stream.window == 0 {
                stream.probe = Some(now + self.timer.probe(&mut self.chance));
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
            if let Some(left) = stream.unite(news) {
                self.timer.took(now.saturating_sub(left));
            }
            stream.window = news.window;
            stream.empty = false;
            stream.probe = (news.window == 0).then(|| now + self.timer.probe(&mut self.chance));
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
            Some(probe) => Some(probe).filter(|_| !stream.empty),
            None => stream.in_flight.values().map(|flight| flight.due).min(),
        };
        self.streams.values().filter_map(due).min()
    }

    /// Batches that left and have no receipt yet.
    pub fn in_flight(&self) -> usize {
        self.streams.values().map(|stream| stream.in_flight.len()).sum()
    }
}

/// How long to wait for receipts, from how long they take (RFC 6298). Other than there a batch that left again counts from
/// its first leaving: what makes receipts late is a hub with much to do, much rather than one that lost the batch.
#[derive(Debug)]
struct Timer {
    least: Duration,
    most: Duration,
    /// The smoothed time that receipts take, and how far they are from it.
    smoothed: Option<(Duration, Duration)>,
}

impl Timer {
    fn new(settings: &OutboxSettings) -> Self {
        Self { least: settings.resend_after, most: settings.resend_cap, smoothed: None }
    }

    /// A receipt took so long.
    fn took(&mut self, sample: Duration) {
        let (smoothed, deviation) = self.smoothed.get_or_insert((sample, sample / 2));
        *deviation = (*deviation * 3 + smoothed.abs_diff(sample)) / 4;
        *smoothed = (*smoothed * 7 + sample) / 8;
    }

    /// Waits for a receipt, doubling with each attempt.
    fn resend(&self, attempts: u32, chance: &mut Chance) -> Duration {
        let first = self.smoothed.map_or(self.least, |(smoothed, deviation)| self.least.max(smoothed + deviation * 4));
        scattered(first.saturating_mul(1 << attempts.min(16)).min(self.most), chance)
    }

    /// Who holds waits for the hub's word; a probe is for the case that it was lost.
    fn probe(&self, chance: &mut Chance) -> Duration {
        scattered(self.most, chance)
    }
}

/// 75 % to 125 % of a wait, so that a fleet does not resend in step.
fn scattered(nominal: Duration, chance: &mut Chance) -> Duration {
    chance.between(nominal * 3 / 4, nominal * 5 / 4)
}

impl Stream {
    fn next<E>(
        &mut self,
        now: Duration,
        room: bool,
        mut after: impl FnMut(SequenceNumber) -> Result<Option<SequenceNumber>, E>,
    ) -> Result<Option<SequenceNumber>, E> {
        if let Some(probe) = self.probe {
            // Hold. One batch, the oldest, goes out at the probe's time.
            if now < probe {
                return Ok(None);
            }
            let found = after(self.through)?;
            self.empty = found.is_none();
            return Ok(found);
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
        if !room || self.in_flight.len() >= usize::from(self.window) {
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

    /// Takes a receipt in; when the newest batch that it answers for left.
    fn unite(&mut self, news: &StreamAck) -> Option<Duration> {
        self.through = self.through.max(news.through);
        self.scattered.extend(news.scattered.iter().copied());
        let mut next = SequenceNumber(self.through.0 + 1);
        while self.scattered.contains(&next) {
            self.through = next;
            next.0 += 1;
        }
        self.scattered.retain(|number| *number > self.through);
        self.sent = self.sent.max(self.through);
        let (through, scattered) = (self.through, &self.scattered);
        let answered = self.in_flight.extract_if(.., |number, _| *number <= through || scattered.contains(number));
        answered.map(|(_, flight)| flight.left).max()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    const INCARNATION: Incarnation = Incarnation(1);

    fn name(text: &str) -> StreamName {
        StreamName::new(text).unwrap()
    }

    fn settings() -> OutboxSettings {
        OutboxSettings { first_window: 8, ..OutboxSettings::default() }
    }

    fn outbox(streams: &[&str]) -> Outbox {
        let mut outbox = Outbox::new(INCARNATION, settings(), 3);
        streams.iter().for_each(|stream| outbox.add_stream(name(stream)));
        outbox.connected();
        outbox
    }

    /// A store in which every stream holds `1..=last`.
    fn stored(last: u64) -> impl Fn(&StreamName, SequenceNumber) -> Result<Option<SequenceNumber>, Infallible> {
        move |_, after| Ok((after.0 < last).then_some(SequenceNumber(after.0 + 1)))
    }

    fn ack(stream: &str, through: u64, scattered: &[u64], window: u16) -> AckV1 {
        let scattered = scattered.iter().copied().map(SequenceNumber).collect();
        let through = SequenceNumber(through);
        let (stream, incarnation) = (name(stream), INCARNATION);
        AckV1 { streams: vec![StreamAck { stream, incarnation, through, scattered, quarantined: vec![], window }] }
    }

    fn all(outbox: &mut Outbox, now: u64, last: u64) -> Vec<(String, u64)> {
        let now = Duration::from_secs(now);
        std::iter::from_fn(|| outbox.next(now, stored(last)).unwrap())
            .map(|(stream, sequence)| (stream.to_string(), sequence.0))
            .collect()
    }

    fn numbers(sent: &[(String, u64)]) -> Vec<u64> {
        sent.iter().map(|(_, number)| *number).collect()
    }

    #[test]
    fn a_stream_keeps_to_its_window_and_goes_on_where_it_was() {
        let mut outbox = outbox(&["events"]);
        assert_eq!(numbers(&all(&mut outbox, 0, 100)), (1..=8).collect::<Vec<_>>());
        outbox.acknowledged(Duration::ZERO, &ack("events", 3, &[5], 4));
        assert_eq!(numbers(&all(&mut outbox, 0, 100)), Vec::<u64>::new(), "4, 6, 7 and 8 are still out");
        outbox.acknowledged(Duration::ZERO, &ack("events", 7, &[], 4));
        assert_eq!(numbers(&all(&mut outbox, 0, 100)), [9, 10, 11]);
    }

    #[test]
    fn all_streams_together_keep_to_the_limit_and_resends_are_not_new() {
        let settings = OutboxSettings { in_flight: 3, ..settings() };
        let mut outbox = Outbox::new(INCARNATION, settings, 3);
        ["events", "observations"].iter().for_each(|stream| outbox.add_stream(name(stream)));
        outbox.connected();
        assert_eq!(numbers(&all(&mut outbox, 0, 9)), [1, 1, 2]);
        assert_eq!(all(&mut outbox, 10, 9).len(), 3, "what is late leaves again although there is no room");
        assert_eq!(outbox.in_flight(), 3);
    }

    #[test]
    fn streams_take_turns() {
        let mut outbox = outbox(&["events", "observations"]);
        let sent = all(&mut outbox, 0, 2);
        let order: Vec<_> = sent.iter().map(|(stream, number)| (stream.as_str(), *number)).collect();
        assert_eq!(order, [("events", 1), ("observations", 1), ("events", 2), ("observations", 2)]);
    }

    #[test]
    fn receipts_unite_and_old_ones_take_nothing_back() {
        let mut outbox = outbox(&["events"]);
        outbox.acknowledged(Duration::ZERO, &ack("events", 0, &[2, 3, 5], 8));
        let freed = outbox.acknowledged(Duration::ZERO, &ack("events", 1, &[], 8));
        assert_eq!((freed[0].through, freed[0].scattered.clone()), (SequenceNumber(3), vec![SequenceNumber(5)]));
        let freed = outbox.acknowledged(Duration::ZERO, &ack("events", 0, &[], 8));
        assert_eq!(freed[0].through, SequenceNumber(3));
        assert_eq!(numbers(&all(&mut outbox, 0, 6)), [4, 6]);
    }

    #[test]
    fn a_receipt_of_another_incarnation_or_stream_frees_nothing() {
        let mut outbox = outbox(&["events"]);
        let mut other = ack("events", 9, &[], 8);
        other.streams[0].incarnation = Incarnation(2);
        assert_eq!(outbox.acknowledged(Duration::ZERO, &other), []);
        assert_eq!(outbox.acknowledged(Duration::ZERO, &ack("unheard-of", 9, &[], 8)), []);
    }

    #[test]
    fn what_gets_no_receipt_leaves_again_after_growing_waits() {
        let mut outbox = outbox(&["events"]);
        assert_eq!(numbers(&all(&mut outbox, 0, 1)), [1]);
        let first = outbox.next_wake().unwrap();
        assert!((Duration::from_millis(3750)..Duration::from_millis(6250)).contains(&first));
        assert_eq!(numbers(&all(&mut outbox, 3, 1)), Vec::<u64>::new());
        assert_eq!(numbers(&all(&mut outbox, 7, 1)), [1]);
        let second = outbox.next_wake().unwrap() - Duration::from_secs(7);
        assert!((Duration::from_millis(7500)..Duration::from_millis(12500)).contains(&second));
    }

    /// A hub that has much to do would otherwise get everything several times.
    #[test]
    fn where_receipts_take_long_batches_wait_longer_before_they_leave_again() {
        let mut outbox = outbox(&["events"]);
        let mut now = 0;
        for number in 1..=20 {
            assert_eq!(numbers(&all(&mut outbox, now, number)), [number]);
            now += 20;
            outbox.acknowledged(Duration::from_secs(now), &ack("events", number, &[], 8));
        }
        all(&mut outbox, now, 21);
        let patient = outbox.next_wake().unwrap() - Duration::from_secs(now);
        assert!((Duration::from_secs(15)..Duration::from_secs(30)).contains(&patient), "{patient:?}");
        for number in 21..=60 {
            outbox.acknowledged(Duration::from_secs(now), &ack("events", number, &[], 8));
            all(&mut outbox, now, number + 1);
        }
        assert!(outbox.next_wake().unwrap() - Duration::from_secs(now) < Duration::from_secs(7));
    }

    #[test]
    fn a_new_connection_sends_all_that_has_no_receipt_and_none_sends_nothing() {
        let mut outbox = outbox(&["events"]);
        all(&mut outbox, 0, 3);
        outbox.acknowledged(Duration::ZERO, &ack("events", 1, &[3], 8));
        outbox.disconnected();
        assert_eq!((all(&mut outbox, 100, 3), outbox.next_wake()), (vec![], None));
        outbox.connected();
        assert_eq!(numbers(&all(&mut outbox, 100, 3)), [2]);
    }

    #[test]
    fn hold_stops_a_stream_until_a_single_probe() {
        let mut outbox = outbox(&["events"]);
        outbox.acknowledged(Duration::ZERO, &ack("events", 0, &[], 0));
        assert_eq!(numbers(&all(&mut outbox, 1, 9)), Vec::<u64>::new());
        assert!(outbox.next_wake().is_some());
        assert_eq!(numbers(&all(&mut outbox, 7, 9)), Vec::<u64>::new(), "the hub says when to go on");
        assert_eq!(numbers(&all(&mut outbox, 76, 9)), [1], "unless its word was lost");
        outbox.acknowledged(Duration::from_secs(77), &ack("events", 1, &[], 2));
        assert_eq!(numbers(&all(&mut outbox, 77, 9)), [2, 3]);
    }

    #[test]
    fn hold_over_an_empty_stream_wakes_nobody() {
        let mut outbox = outbox(&["events"]);
        outbox.acknowledged(Duration::ZERO, &ack("events", 3, &[], 0));
        assert!(outbox.next_wake().is_some());
        assert_eq!(numbers(&all(&mut outbox, 76, 3)), Vec::<u64>::new());
        assert_eq!(outbox.next_wake(), None, "a probe that is due for ever keeps a device busy with nothing");
        assert_eq!(numbers(&all(&mut outbox, 77, 9)), [4], "the store grew");
        assert!(outbox.next_wake().is_some());
    }

    #[test]
    fn a_batch_that_became_part_of_a_gap_is_looked_for_anew() {
        let mut outbox = outbox(&["events"]);
        assert_eq!(numbers(&all(&mut outbox, 0, 3)), [1, 2, 3]);
        // The store dropped 1 to 3 and holds a gap with number 1 and batch 4.
        let gap = |_: &StreamName, after: SequenceNumber| -> Result<_, Infallible> {
            Ok([1, 4].into_iter().map(SequenceNumber).find(|number| *number > after))
        };
        let now = Duration::from_secs(10);
        let mut sent = Vec::new();
        while let Some((_, number)) = outbox.next(now, gap).unwrap() {
            sent.push(number.0);
        }
        assert_eq!(sent, [1, 4]);
    }

    proptest! {
        /// A network that loses batches and receipts, repeats receipts and cuts connections: all arrive in the end.
        #[test]
        fn everything_arrives_over_a_bad_network(
            fates in prop::collection::vec((any::<bool>(), any::<bool>(), 0u8..20), 50..200), last in 1u64..40
        ) {
            let mut outbox = outbox(&["events"]);
            let mut there = BTreeSet::new();
            let mut now = 0;
            let fates = fates.into_iter().chain(std::iter::repeat_n((true, true, 9), 200));
            for (batch_arrives, receipt_arrives, accident) in fates {
                let sent = all(&mut outbox, now, last);
                prop_assert!(outbox.in_flight() <= 8);
                if batch_arrives {
                    there.extend(numbers(&sent));
                }
                if receipt_arrives {
                    let through = (1..).take_while(|number| there.contains(number)).count() as u64;
                    let scattered: Vec<_> = there.iter().copied().filter(|number| *number > through).collect();
                    let freed = outbox.acknowledged(Duration::from_secs(now), &ack("events", through, &scattered, 8));
                    prop_assert!((1..=freed[0].through.0).all(|number| there.contains(&number)));
                }
                if accident == 0 {
                    outbox.disconnected();
                    outbox.connected();
                }
                now += 5;
            }
            prop_assert_eq!(there.len() as u64, last);
        }
    }
}
