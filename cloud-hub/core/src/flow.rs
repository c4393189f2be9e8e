//! How many batches a stream of a device may have in flight, from how much the hub has to do.
//!
//! What devices hold back is safe in their outboxes, and what comes in costs memory until it is committed. So the hub
//! takes in as much as it commits within its *patience*, well before devices would send again, and shares that out: whoever
//! sends little sends freely, and the others get equal parts of what is left, in bytes. Who is new or comes back begins
//! with little and may have one more in flight for each batch that came, so that a thousand who return at once
//! do not fill the queue before anything is known of them. When more waits than that all the
//! same, those who send most are told to hold, and go on in the order in which they were stopped. A disk that runs full
//! slows everybody down before it refuses.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Senders that said nothing for so many times the patience are forgotten, and so is the speed of a hub without much to do.
const FORGET: u32 = 15;
/// As long as the hub does not know its speed, this part of the queue may be filled.
const UNKNOWN: u64 = 8;
/// Whatever the speed, this part may: where each commit takes long, many small ones would take longer still.
const FLOOR: u64 = 64;
/// Of what nobody uses, one sender may take this part at a time, because others may take it too.
const GROWTH: f64 = 4.0;
/// When this part of what is committed in time waits already, more comes than is committed.
const CROWDED: f64 = 0.75;
/// How much the newest batch says about the size of batches.
const NEWEST: f64 = 0.25;

/// What the hub is ready to take.
#[derive(Debug, Clone, Copy)]
pub struct FlowSettings {
    /// The most batches of a stream in flight.
    pub most: u16,
    /// How long a batch may wait here: well under the time after which devices send again.
    pub patience: Duration,
    /// Memory for what waits.
    pub queue_bytes: u64,
    /// Disk that records do not get, so that the rest of the hub can still write.
    pub disk_reserve: u64,
}

#[derive(Debug)]
struct Sender {
    /// Bytes of late, each counting less as time goes by: what it sends within the patience.
    used: f64,
    /// When that was so.
    at: Duration,
    /// Size of its batches.
    batch: f64,
    last: Duration,
    /// Batches that came since it is known.
    came: u32,
}

/// Shares the hub out among senders, each a stream of a device.
#[derive(Debug)]
pub struct Flow<K> {
    settings: FlowSettings,
    senders: BTreeMap<K, Sender>,
    /// Bytes committed per second, at times when there was enough to commit.
    speed: Option<f64>,
    /// When there was.
    busy: Duration,
    waiting: u64,
    disk_free: Option<u64>,
    /// What one sender may use within the patience.
    share: f64,
    /// Those who hold, in the order in which they were stopped.
    queue: VecDeque<K>,
    holds: BTreeSet<K>,
}

impl<K: Ord + Clone> Flow<K> {
    /// Nobody sends yet.
    pub fn new(settings: FlowSettings) -> Self {
        let mut flow = Self {
            settings,
            senders: BTreeMap::new(),
            speed: None,
            busy: Duration::ZERO,
            waiting: 0,
            disk_free: None,
            share: 0.0,
            queue: VecDeque::new(),
            holds: BTreeSet::new(),
        };
        flow.share_out();
        flow
    }

    /// A batch came.
    pub fn received(&mut self, now: Duration, sender: &K, bytes: u64) {
        let (bytes, patience) = (bytes as f64, self.settings.patience);
        match self.senders.get_mut(sender) {
            Some(known) => {
                known.fade(now, patience);
                known.used += bytes;
                known.batch += (bytes - known.batch) * NEWEST;
                known.last = now;
                known.came = known.came.saturating_add(1);
            }
            None => {
                self.senders.insert(sender.clone(), Sender { used: bytes, at: now, batch: bytes, last: now, came: 1 });
            }
        }
        // It may go on already: the word to do so may have been lost, or this is its probe.
        self.stop_holding(sender);
    }

    /// A group of so many bytes took so long to commit, and behind it so many more are waiting.
    pub fn committed(&mut self, now: Duration, bytes: u64, took: Duration, behind: u64) {
        // What the hub writes by itself, labels for one, is no message and says nothing of how fast these are committed.
        if bytes == 0 {
            return;
        }
        let (took, patience) = (took.as_secs_f64().max(1e-3), self.settings.patience.as_secs_f64().max(1e-3));
        let sample = bytes as f64 / took;
        // A small group says little of what the hub could do, unless it has more to do than it gets done in time.
        let is_busy = behind >= bytes || took >= patience / 2.0;
        if is_busy || self.speed.is_some_and(|speed| sample > speed) {
            let speed = self.speed.get_or_insert(sample);
            *speed += (sample - *speed) * (1.0 - (-took / patience).exp());
        }
        if is_busy {
            self.busy = now;
        }
    }

    /// So many bytes wait, and so many are free on the disk, if that is known. Shares are computed anew.
    pub fn measured(&mut self, now: Duration, waiting: u64, disk_free: Option<u64>) {
        (self.waiting, self.disk_free) = (waiting, disk_free);
        let (patience, holds) = (self.settings.patience, &self.holds);
        if now.saturating_sub(self.busy) > patience * FORGET {
            self.speed = None;
        }
        self.senders.retain(|key, sender| {
            sender.fade(now, patience);
            now.saturating_sub(sender.last) <= patience * FORGET || holds.contains(key)
        });
        self.share_out();
    }

    /// How many batches this sender may have in flight; 0: it holds until it is among those who [go
    /// on](Self::go_on), or until its probe.
    pub fn window(&mut self, sender: &K) -> u16 {
        let most = self.settings.most.max(1);
        if self.disk_is_full() {
            self.hold(sender);
            return 0;
        }
        let Some(known) = self.senders.get(sender) else { return 1 };
        if self.is_crowded() && known.used >= self.share {
            self.hold(sender);
            return 0;
        }
        let most = u32::from(most).min(known.came.saturating_add(1));
        ((self.share / known.batch.max(1.0)) as u64).clamp(1, most.into()) as u16
    }

    /// Those who held and may go on now. As many as there is room for.
    pub fn go_on(&mut self) -> Vec<K> {
        if self.disk_is_full() || self.is_crowded() {
            return Vec::new();
        }
        let mut room = self.budget() / 2.0 - self.waiting as f64;
        let mut first = Vec::new();
        while room > 0.0 {
            let Some(sender) = self.queue.pop_front() else { break };
            if self.holds.remove(&sender) {
                room -= self.senders.get(&sender).map_or(1.0, |sender| sender.batch.max(self.share));
                first.push(sender);
            }
        }
        first
    }

    /// Whether somebody holds.
    pub fn anybody_holds(&self) -> bool {
        !self.holds.is_empty()
    }

    /// Senders that hold.
    pub fn holding(&self) -> usize {
        self.holds.len()
    }

    /// Whether records have used up their part of the disk.
    pub fn disk_is_full(&self) -> bool {
        self.disk_free.is_some_and(|free| free < self.settings.disk_reserve)
    }

    fn hold(&mut self, sender: &K) {
        if self.holds.insert(sender.clone()) {
            self.queue.push_back(sender.clone());
        }
    }

    fn stop_holding(&mut self, sender: &K) {
        if self.holds.remove(sender) {
            self.queue.retain(|held| held != sender);
        }
    }

    /// Whether more waits than is committed in time.
    fn is_crowded(&self) -> bool {
        self.waiting as f64 > self.budget() * CROWDED
    }

    /// Bytes that may be under way at once.
    fn budget(&self) -> f64 {
        let FlowSettings { queue_bytes, patience, disk_reserve, .. } = self.settings;
        let bytes = match self.speed {
            Some(speed) => (speed * patience.as_secs_f64()).clamp((queue_bytes / FLOOR) as f64, queue_bytes as f64),
            None => (queue_bytes / UNKNOWN) as f64,
        };
        // From twice the reserve on downwards.
        let above =
            self.disk_free.map_or(1.0, |free| free.saturating_sub(disk_reserve) as f64 / disk_reserve.max(1) as f64);
        bytes * above.clamp(0.0, 1.0)
    }

    /// The less room is left in the queue, the less is shared out: however fast commits seem, they do not keep up.
    fn to_share(&self) -> f64 {
        let (full, crowded) = (self.settings.queue_bytes as f64, self.budget() * CROWDED);
        let left = (full - self.waiting as f64) / (full - crowded).max(1.0);
        self.budget() * left.clamp(1.0 / UNKNOWN as f64, 1.0)
    }

    /// Whoever uses less than an equal part leaves the rest to the others.
    fn share_out(&mut self) {
        let mut used: Vec<f64> = self.senders.values().map(|sender| sender.used).collect();
        used.sort_by(f64::total_cmp);
        let (budget, mut left, mut others) = (self.to_share(), self.to_share(), used.len());
        let mut largest = 0.0;
        for used in used {
            if used > left / others as f64 {
                self.share = left / others as f64;
                return;
            }
            (left, others, largest) = (left - used, others - 1, used);
        }
        let equal = budget / self.senders.len().max(1) as f64;
        self.share = equal.max(largest).max(left / GROWTH);
    }
}

impl Sender {
    fn fade(&mut self, now: Duration, patience: Duration) {
        let since = now.saturating_sub(self.at).as_secs_f64();
        self.used *= (-since / patience.as_secs_f64().max(1e-3)).exp();
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;
    const SETTINGS: FlowSettings =
        FlowSettings { most: 64, patience: Duration::from_secs(2), queue_bytes: 64 * MB, disk_reserve: 256 * MB };

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// So many batches that whoever sent them is new no more; they are of some time ago.
    fn known<K: Ord + Clone>(flow: &mut Flow<K>, sender: K, bytes: u64) {
        (0..64).for_each(|_| flow.received(at(0), &sender, bytes));
        flow.measured(at(20_000), 0, None);
    }

    #[test]
    fn a_hub_at_rest_takes_all_that_its_settings_allow() {
        let mut flow = Flow::new(SETTINGS);
        known(&mut flow, "one", 50_000);
        known(&mut flow, "large", 1_000_000);
        flow.received(at(20_001), &"one", 50_000);
        flow.measured(at(20_002), 50_000, Some(100_000 * MB));
        assert_eq!(flow.window(&"one"), 64);
        flow.received(at(20_003), &"large", 1_000_000);
        flow.measured(at(20_004), 1_050_000, None);
        assert_eq!((flow.window(&"one"), flow.window(&"large")), (64, 4), "half of an eighth of the queue, in bytes");
    }

    /// In the rhythm of receipts that is twice as much each time, as long as there is room.
    #[test]
    fn who_is_new_or_comes_back_begins_with_little() {
        let mut flow = Flow::new(SETTINGS);
        let (mut windows, mut now) = (vec![flow.window(&"new")], 0);
        while windows.last() < Some(&64) {
            for _ in 0..*windows.last().unwrap() {
                flow.received(at(now), &"new", 2_000);
            }
            now += 10;
            flow.measured(at(now), 2_000, None);
            windows.push(flow.window(&"new"));
        }
        assert_eq!(windows, [1, 2, 4, 8, 16, 32, 64]);
        flow.measured(at(now + 40_000), 0, None);
        assert_eq!(flow.window(&"new"), 1, "it was away");
    }

    #[test]
    fn a_faster_hub_takes_more_and_a_slower_one_less_down_to_none() {
        let mut flow = Flow::new(SETTINGS);
        let mut windows = Vec::new();
        for bytes in [32 * MB, MB, MB / 100] {
            (0..40).for_each(|_| flow.committed(at(1), bytes, Duration::from_secs(1), bytes));
            (0..100).for_each(|sender| flow.received(at(1), &sender, 100_000));
            (0..100).for_each(|sender| flow.received(at(1), &sender, 100_000));
            flow.measured(at(1), MB, None);
            windows.push(flow.window(&7));
        }
        assert!(windows[0] > windows[1] && windows[1..] == [1, 0], "{windows:?}");
    }

    #[test]
    fn only_a_busy_hub_says_how_fast_it_is_and_not_for_ever() {
        let mut flow = Flow::<&str>::new(SETTINGS);
        let unknown = flow.budget();
        (0..100).for_each(|now| flow.committed(at(now), 1_000, Duration::from_millis(50), 0));
        flow.committed(at(100), 0, Duration::from_secs(5), MB);
        assert_eq!(flow.budget(), unknown, "small groups, and nothing behind them; what the hub writes by itself");
        flow.committed(at(5_000), 5 * MB, Duration::from_secs(5), 0);
        let slow = flow.budget();
        assert!(slow < unknown, "it took long, so there was enough to do");
        flow.committed(at(6_000), MB, Duration::from_secs(2), MB);
        let slower = flow.budget();
        assert!(slower < slow, "as much waits behind it");
        flow.committed(at(6_100), MB, Duration::from_millis(100), 0);
        assert!(flow.budget() > slower, "that fast it is at least");
        flow.measured(at(6_000 + 30_001), 0, None);
        assert_eq!(flow.budget(), unknown, "it had little to do for long");
    }

    #[test]
    fn a_few_loud_senders_share_what_the_quiet_ones_leave() {
        let mut flow = Flow::new(SETTINGS);
        for second in 0..20 {
            (0..1000).for_each(|quiet| (0..4).for_each(|_| flow.received(at(second * 1000), &quiet, 125)));
            (1000..1003).for_each(|loud| (0..40).for_each(|_| flow.received(at(second * 1000), &loud, 100_000)));
            flow.measured(at(second * 1000), 2 * MB, None);
        }
        let quiet: Vec<u16> = (0..1000).map(|sender| flow.window(&sender)).collect();
        assert!(quiet.iter().all(|window| *window == 64), "whoever sends little is never slowed down");
        let loud: Vec<u16> = (1000..1003).map(|sender| flow.window(&sender)).collect();
        assert!(loud.iter().all(|window| *window == loud[0] && *window < 30), "{loud:?}");
    }

    #[test]
    fn shares_are_bytes_whatever_the_size_of_batches() {
        let mut flow = Flow::new(SETTINGS);
        for _ in 0..20 {
            (0..50).for_each(|_| flow.received(at(0), &"large", 400_000));
            (0..200).for_each(|_| flow.received(at(0), &"small", 100_000));
        }
        flow.measured(at(0), MB, None);
        let (large, small) = (flow.window(&"large"), flow.window(&"small"));
        assert!(small.abs_diff(large * 4) <= 4, "{large} {small}");
    }

    /// The loud ones hold; the quiet ones are not even asked to.
    #[test]
    fn when_too_much_waits_the_loud_ones_hold_and_go_on_in_turn_when_there_is_room() {
        let mut flow = Flow::new(SETTINGS);
        (0..64).for_each(|_| flow.received(at(0), &99, 8));
        for loud in 0..20 {
            (0..8).for_each(|_| flow.received(at(0), &loud, MB));
        }
        flow.measured(at(0), 50 * MB, None);
        assert_eq!((flow.window(&99), (0..20).map(|loud| flow.window(&loud)).max()), (64, Some(0)));
        assert_eq!((flow.holding(), flow.go_on()), (20, vec![]));
        let mut back = Vec::new();
        for turn in 1..100 {
            flow.measured(at(100 * turn), 0, None);
            let some = flow.go_on();
            assert!(some.len() < 20, "not all at once");
            back.extend(some);
        }
        assert_eq!(back, (0..20).collect::<Vec<_>>());
        assert!(!flow.anybody_holds());
    }

    /// Decoding, the disk of somebody else: what makes a hub slow need not show in the time of its commits.
    #[test]
    fn a_full_queue_holds_all_who_send_much_however_fast_commits_seem() {
        let mut flow = Flow::new(SETTINGS);
        flow.committed(at(0), 1000 * MB, Duration::from_secs(1), 1000 * MB);
        (0..100).for_each(|sender| flow.received(at(0), &sender, 100_000));
        (0..64).for_each(|_| flow.received(at(0), &100, 16));
        flow.measured(at(0), 64 * MB, None);
        assert!((0..100).all(|sender| flow.window(&sender) == 0));
        assert_eq!(flow.window(&100), 64);
    }

    #[test]
    fn a_probe_ends_the_holding_of_who_sent_it() {
        let mut flow = Flow::new(SETTINGS);
        (0..9).for_each(|_| flow.received(at(0), &"a", 8 * MB));
        flow.measured(at(0), 64 * MB, None);
        assert_eq!(flow.window(&"a"), 0);
        flow.received(at(5000), &"a", 100);
        assert!(!flow.anybody_holds());
        flow.measured(at(5000), 0, None);
        assert!(flow.window(&"a") > 0);
        assert_eq!(flow.go_on(), Vec::<&str>::new());
    }

    #[test]
    fn a_disk_that_runs_full_slows_all_down_and_then_stops_them() {
        let mut flow = Flow::new(SETTINGS);
        known(&mut flow, "a", 100_000);
        let mut windows = Vec::new();
        for free in [1000, 512, 384, 270, 255, 0] {
            flow.received(at(20_000), &"a", 100_000);
            flow.measured(at(20_000), 0, Some(free * MB));
            windows.push(flow.window(&"a"));
        }
        assert!(windows.is_sorted_by(|before, after| before >= after), "{windows:?}");
        assert!(windows[3] > 0 && windows[4..] == [0, 0], "{windows:?}");
        assert!(flow.disk_is_full() && flow.go_on().is_empty());
        flow.measured(at(20_001), 0, Some(300 * MB));
        assert_eq!(flow.go_on(), ["a"]);
    }

    #[test]
    fn who_went_away_is_forgotten() {
        let mut flow = Flow::new(SETTINGS);
        (0..1000).for_each(|sender| flow.received(at(0), &sender, MB));
        flow.measured(at(40_000), 0, None);
        assert!(flow.senders.is_empty());
    }
}
