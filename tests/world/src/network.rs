//! Ways between machines that delay, lose, repeat and reorder, and that can be cut in one direction or both.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use crate::faults::{Fault, Faults};

/// A machine: the hub is 0, devices follow.
pub type Machine = usize;

/// How good the way between two machines is, in both directions.
#[derive(Debug, Clone)]
pub struct Quality {
    /// How long a message travels; a wide range reorders.
    pub delay: Range<Duration>,
    /// Share of messages that are lost.
    pub loss: f64,
    /// Share that arrive twice.
    pub repeat: f64,
    /// What fits through in a second; `None`: anything.
    pub bytes_per_second: Option<u64>,
}

impl Quality {
    /// A way without faults.
    pub fn good() -> Self {
        Self {
            delay: Duration::from_millis(5)..Duration::from_millis(50),
            loss: 0.0,
            repeat: 0.0,
            bytes_per_second: None,
        }
    }

    /// Somewhere between good and dreadful.
    pub fn any(chance: &mut StdRng) -> Self {
        let longest = [50, 500, 5_000, 60_000][chance.random_range(0..4)];
        Self {
            delay: Duration::from_millis(5)..Duration::from_millis(longest),
            loss: [0.0, 0.01, 0.1, 0.4][chance.random_range(0..4)],
            repeat: [0.0, 0.01, 0.2][chance.random_range(0..3)],
            bytes_per_second: [None, None, Some(20_000), Some(2_000)][chance.random_range(0..4)],
        }
    }
}

/// One direction of a way.
#[derive(Debug, Default)]
struct Direction {
    /// Nothing arrives that leaves before.
    cut_until: Duration,
    /// A slow way is taken by earlier messages until then.
    busy_until: Duration,
    /// When the last of the messages so far arrives.
    newest: Duration,
}

/// All ways.
#[derive(Debug)]
pub struct Network {
    quality: BTreeMap<Machine, Quality>,
    directions: BTreeMap<(Machine, Machine), Direction>,
    chance: StdRng,
}

impl Network {
    /// Ways of good quality.
    pub fn new(chance: StdRng) -> Self {
        Self { quality: BTreeMap::new(), directions: BTreeMap::new(), chance }
    }

    /// The ways from and to this machine become so good or bad.
    pub fn set_quality(&mut self, machine: Machine, quality: Quality) {
        self.quality.insert(machine, quality);
    }

    /// Nothing passes in this direction before then.
    pub fn cut(&mut self, from: Machine, to: Machine, until: Duration) {
        let direction = self.directions.entry((from, to)).or_default();
        direction.cut_until = direction.cut_until.max(until);
    }

    /// All cuts end, and all ways are good.
    pub fn mend(&mut self) {
        self.quality.clear();
        self.directions.clear();
    }

    /// Whether something could pass now.
    pub fn passes(&self, now: Duration, from: Machine, to: Machine) -> bool {
        self.directions.get(&(from, to)).is_none_or(|direction| direction.cut_until <= now)
    }

    /// When a message that leaves now arrives: never, once, or twice.
    pub fn send(
        &mut self,
        now: Duration,
        from: Machine,
        to: Machine,
        bytes: usize,
        faults: &mut Faults,
    ) -> Vec<Duration> {
        if !self.passes(now, from, to) {
            faults.count(Fault::MessageCut);
            return Vec::new();
        }
        let good = Quality::good();
        let quality = self.quality.get(&from.max(to)).unwrap_or(&good);
        if self.chance.random_bool(quality.loss) {
            faults.count(Fault::MessageLost);
            return Vec::new();
        }
        let mut copies = 1;
        if self.chance.random_bool(quality.repeat) {
            faults.count(Fault::MessageRepeated);
            copies = 2;
        }
        let direction = self.directions.entry((from, to)).or_default();
        let taken = quality.bytes_per_second.map_or(0.0, |rate| bytes as f64 / rate as f64);
        direction.busy_until = direction.busy_until.max(now) + Duration::from_secs_f64(taken);
        let leaves = direction.busy_until;
        let arrive: Vec<_> = (0..copies).map(|_| leaves + self.chance.random_range(quality.delay.clone())).collect();
        if arrive.iter().any(|at| *at < direction.newest) {
            faults.count(Fault::MessageOvertook);
        }
        direction.newest = arrive.iter().copied().max().unwrap_or_default().max(direction.newest);
        arrive
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn network() -> Network {
        Network::new(StdRng::seed_from_u64(1))
    }

    #[test]
    fn a_cut_holds_in_its_direction_until_its_end() {
        let (mut network, mut faults) = (network(), Faults::default());
        network.cut(1, 0, SECOND);
        assert!(network.send(Duration::ZERO, 1, 0, 10, &mut faults).is_empty());
        assert_eq!(network.send(Duration::ZERO, 0, 1, 10, &mut faults).len(), 1);
        assert_eq!(network.send(SECOND, 1, 0, 10, &mut faults).len(), 1);
        assert_eq!(faults.total(), 1);
    }

    #[test]
    fn a_slow_way_takes_one_message_after_the_other() {
        let (mut network, mut faults) = (network(), Faults::default());
        network.set_quality(1, Quality { bytes_per_second: Some(100), ..Quality::good() });
        let first = network.send(Duration::ZERO, 1, 0, 100, &mut faults)[0];
        let second = network.send(Duration::ZERO, 1, 0, 100, &mut faults)[0];
        assert!(first >= SECOND && second >= 2 * SECOND, "{first:?} {second:?}");
    }

    #[test]
    fn messages_are_lost_and_repeated_as_often_as_was_said() {
        let (mut network, mut faults) = (network(), Faults::default());
        network.set_quality(1, Quality { loss: 0.3, repeat: 0.5, ..Quality::good() });
        let arrived: usize = (0..10_000).map(|_| network.send(SECOND, 0, 1, 1, &mut faults).len()).sum();
        assert!((10_000..11_000).contains(&arrived), "7 000 of 10 000 leave, half of them twice: {arrived}");
    }

    #[test]
    fn a_message_that_comes_before_an_earlier_one_is_counted() {
        let (mut network, mut faults) = (network(), Faults::default());
        network.set_quality(1, Quality { delay: SECOND..2 * SECOND, ..Quality::good() });
        network.send(Duration::ZERO, 1, 0, 1, &mut faults);
        network.send(2 * SECOND, 1, 0, 1, &mut faults);
        assert_eq!(faults.total(), 0, "what leaves later arrives later");
        let mut newest = Duration::ZERO;
        let overtook = (0..100).filter(|_| {
            let at = network.send(9 * SECOND, 1, 0, 1, &mut faults)[0];
            let overtakes = at < newest;
            newest = newest.max(at);
            overtakes
        });
        assert_eq!(overtook.count() as u64, faults.total());
        assert!(faults.total() > 50);
    }
}
