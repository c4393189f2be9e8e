//! How many may stand at the door and come in, in all and from one address.
//!
//! A connection is *half open* until its handshake is done. Whoever only opens connections and says nothing must not
//! keep others out: when there is no room for another half-open one, the oldest makes way of the address that has the
//! most of them. Open connections are never
//! cut for new ones; beyond their limit the new one is refused.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;
use tributary_wire::Micros;

/// How often a reason is logged at most; in between it is only counted.
const LOG_EVERY: i64 = 10 * 1_000_000;

/// How many at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections, half open ones included.
    pub connections: usize,
    /// Of these from one address.
    pub connections_per_address: usize,
    /// Of these half open.
    pub half_open: usize,
}

/// Why a connection was not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The TLS handshake failed: no TLS, an old version, a certificate that is not ours.
    Handshake,
    /// The handshake took too long.
    Slow,
    /// It made way for a younger one while its handshake was not done.
    MadeWay,
    /// Its address has too many connections.
    Address,
    /// There are too many connections.
    Full,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Handshake, Self::Slow, Self::MadeWay, Self::Address, Self::Full];

    /// For metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Slow => "handshake-time",
            Self::MadeWay => "half-open",
            Self::Address => "address",
            Self::Full => "connections",
        }
    }
}

/// Where a limit per address applies: an IPv6 subscriber has a whole /64 to choose addresses from.
pub fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

/// How often something happened, and when it was last mentioned in the log.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    times: AtomicU64,
    logged: AtomicI64,
    unlogged: AtomicU64,
}

impl Counted {
    /// Counts it; how many times to mention in the log, if now is the time for it.
    pub(crate) fn count(&self, now: Micros) -> Option<u64> {
        self.times.fetch_add(1, Ordering::Relaxed);
        let times = self.unlogged.fetch_add(1, Ordering::Relaxed) + 1;
        let logged = self.logged.load(Ordering::Relaxed);
        let due = now.0.saturating_sub(logged) >= LOG_EVERY || now.0 < logged;
        let won = due && self.logged.compare_exchange(logged, now.0, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        won.then(|| {
            self.unlogged.fetch_sub(times, Ordering::Relaxed);
            times
        })
    }

    /// How often.
    pub(crate) fn times(&self) -> u64 {
        self.times.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    half_open: BTreeMap<u64, (IpAddr, CancellationToken)>,
    by_origin: HashMap<IpAddr, usize>,
    all: usize,
}

/// The door.
#[derive(Debug)]
pub struct Gate {
    limits: Limits,
    inside: Mutex<Inside>,
    counted: [Counted; Reason::ALL.len()],
}

impl Gate {
    /// A door with these limits.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, inside: Mutex::default(), counted: Default::default() })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a connection come up to the door, if need be in the place of the oldest that is still there.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Entered, Reason> {
        let from = origin(address);
        let mut inside = self.inside();
        if inside.by_origin.get(&from).is_some_and(|count| *count >= self.limits.connections_per_address)
            && !inside.make_way(|other| *other == from)
        {
            return Err(Reason::Address);
        }
        if inside.half_open.len() >= self.limits.half_open {
            inside.make_way_of_the_crowd();
        }
        if inside.all >= self.limits.connections && !inside.make_way_of_the_crowd() {
            return Err(Reason::Full);
        }
        let number = inside.next;
        inside.next += 1;
        inside.all += 1;
        *inside.by_origin.entry(from).or_default() += 1;
        let cut = CancellationToken::new();
        inside.half_open.insert(number, (from, cut.clone()));
        Ok(Entered { gate: self.clone(), number, from, cut })
    }

    /// Counts a connection that was not served; how many to mention in the log, if now is the time for it.
    pub fn count(&self, reason: Reason, now: Micros) -> Option<u64> {
        self.counted[reason as usize].count(now)
    }

    /// How often that happened.
    pub fn of(&self, reason: Reason) -> u64 {
        self.counted[reason as usize].times()
    }

    /// Connections now, half open ones included.
    pub fn connections(&self) -> usize {
        self.inside().all
    }
}

impl Inside {
    /// Cuts the oldest half-open connection of the address that has the most, so that a crowd from one address makes
    /// way for itself; whether there was one. A look at each of them is cheap beside a handshake.
    fn make_way_of_the_crowd(&mut self) -> bool {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for (from, _) in self.half_open.values() {
            *counts.entry(*from).or_default() += 1;
        }
        let most = counts.values().max().copied();
        self.make_way(|from| counts.get(from).copied() == most)
    }

    /// Cuts the oldest half-open connection of those; whether there was one. Its place is free from now on.
    fn make_way(&mut self, of: impl Fn(&IpAddr) -> bool) -> bool {
        let oldest = self.half_open.iter().find(|(_, (from, _))| of(from)).map(|(number, _)| *number);
        let Some((from, cut)) = oldest.and_then(|number| self.half_open.remove(&number)) else { return false };
        cut.cancel();
        self.leave(from);
        true
    }

    fn leave(&mut self, from: IpAddr) {
        self.all = self.all.saturating_sub(1);
        if let Some(count) = self.by_origin.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                self.by_origin.remove(&from);
            }
        }
    }
}

/// A connection that came up to the door; it leaves when this is dropped.
#[derive(Debug)]
pub struct Entered {
    gate: Arc<Gate>,
    number: u64,
    from: IpAddr,
    cut: CancellationToken,
}

impl Entered {
    /// Ends when the connection has to make way. Never once [`Self::opened`] was told.
    pub async fn made_way(&self) {
        self.cut.cancelled().await;
    }

    /// The handshake is done: it stays. `false` if it had to make way a moment ago.
    pub fn opened(&self) -> bool {
        self.gate.inside().half_open.remove(&self.number).is_some()
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut inside = self.gate.inside();
        inside.half_open.remove(&self.number);
        // One that made way was taken out of the sums then.
        if !self.cut.is_cancelled() {
            inside.leave(self.from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Arc<Gate> {
        Gate::new(Limits { connections: 4, connections_per_address: 3, half_open: 2 })
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn the_oldest_half_open_connection_makes_way_and_open_ones_stay() {
        let gate = gate();
        let first = gate.enter(address(1)).unwrap();
        assert!(first.opened());
        let second = gate.enter(address(1)).unwrap();
        let third = gate.enter(address(2)).unwrap();
        let fourth = gate.enter(address(3)).unwrap();
        assert!(!first.cut.is_cancelled() && second.cut.is_cancelled() && !third.cut.is_cancelled());
        assert!(!second.opened() && third.opened() && fourth.opened());
        assert_eq!(gate.connections(), 3);
        drop(second);
        assert_eq!(gate.connections(), 3);
        drop((first, third, fourth));
        assert_eq!((gate.connections(), gate.inside().by_origin.len()), (0, 0));
    }

    #[test]
    fn a_crowd_from_one_address_makes_way_for_itself() {
        let gate = Gate::new(Limits { connections: 100, connections_per_address: 100, half_open: 5 });
        let honest = gate.enter(address(1)).unwrap();
        let crowd: Vec<Entered> = (0..50).map(|_| gate.enter(address(2)).unwrap()).collect();
        assert!(!honest.cut.is_cancelled() && crowd[0].cut.is_cancelled() && !crowd[49].cut.is_cancelled());
        assert!(honest.opened());
        assert_eq!(gate.connections(), 5);
    }

    #[test]
    fn an_address_and_the_whole_have_limits_of_open_connections() {
        let gate = gate();
        let open: Vec<Entered> =
            (0..3).map(|_| gate.enter(address(1)).unwrap()).inspect(|e| assert!(e.opened())).collect();
        assert_eq!(gate.enter(address(1)).unwrap_err(), Reason::Address);
        let other = gate.enter(address(2)).unwrap();
        assert!(other.opened());
        assert_eq!(gate.enter(address(3)).unwrap_err(), Reason::Full);
        drop(open);
        assert!(gate.enter(address(1)).is_ok());
    }

    #[test]
    fn addresses_of_one_subscriber_count_together() {
        let of = |text: &str| origin(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[test]
    fn what_is_refused_is_counted_and_logged_now_and_then() {
        let gate = gate();
        let logged: Vec<Option<u64>> =
            [1, 2, 3, 11, 12].map(|second| gate.count(Reason::Slow, Micros(second * 1_000_000 + LOG_EVERY))).into();
        assert_eq!(logged, [Some(1), None, None, Some(3), None]);
        assert_eq!((gate.of(Reason::Slow), gate.of(Reason::Full)), (5, 0));
    }
}
