//! Who stands at the door: the connections that have not yet been let in, counted by address and all together, apart
//! from the places of those that have.
//!
//! When too many stand there, the one that has waited longest goes. A device needs a fraction of a second from its first
//! packet to its place, so it gets in past thousands that only stand there, also from its own address.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::Limits;
use crate::pace::Pace;
use crate::tally::{Refusal, Tally};

/// Addresses that are forgotten are looked for when this many more are known than last time.
const TIDY_AFTER: usize = 1024;

/// What is counted as one address: of IPv6 its first half, because whoever has one has all of that half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Origin(IpAddr);

impl Origin {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Self(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
            v4 => Self(v4),
        }
    }
}

/// The door; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Door(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    origins: HashMap<Origin, AtOrigin>,
    /// All that wait, the oldest first. Their tasks are filled in when they run.
    waiting: BTreeMap<u64, (Origin, Option<AbortHandle>)>,
    live: usize,
    next: u64,
    tidy_at: usize,
}

#[derive(Debug)]
struct AtOrigin {
    live: usize,
    waiting: BTreeSet<u64>,
    pace: Pace,
}

impl Door {
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Shared { limits, state: Mutex::new(State { tidy_at: TIDY_AFTER, ..State::default() }) }))
    }

    /// Whether so many wait that a peer should first prove its address, where the transport can ask for that.
    pub fn is_crowded(&self) -> bool {
        self.0.state().waiting.len() >= self.0.limits.half_open / 4
    }

    /// Lets one stand at the door. `Err` when its address has too many connections or makes them too fast.
    pub fn knock(&self, address: IpAddr, tally: &Tally) -> Result<Ticket, Refusal> {
        self.knock_at(address, Instant::now(), tally)
    }

    fn knock_at(&self, address: IpAddr, now: Instant, tally: &Tally) -> Result<Ticket, Refusal> {
        let limits = &self.0.limits;
        let origin = Origin::of(address);
        let mut state = self.0.state();
        state.tidy(now);
        let at = state.origins.entry(origin).or_insert_with(|| AtOrigin {
            live: 0,
            waiting: BTreeSet::new(),
            pace: Pace::new(limits.per_address.per_second.into(), now),
        });
        if !at.pace.take_if_free(1, now) {
            return Err(Refusal::AddressRate);
        }
        if at.live >= limits.per_address.connections {
            return Err(Refusal::AddressFull);
        }
        let full_here = at.waiting.len() >= limits.per_address.half_open;
        let oldest_here = at.waiting.first().copied().filter(|_| full_here);
        let full = state.waiting.len() >= limits.half_open;
        let oldest = oldest_here.or_else(|| state.waiting.keys().next().copied().filter(|_| full));
        if let Some(oldest) = oldest {
            state.send_away(oldest, tally);
        }
        let number = state.next;
        state.next += 1;
        state.waiting.insert(number, (origin, None));
        if let Some(at) = state.origins.get_mut(&origin) {
            at.waiting.insert(number);
        }
        drop(state);
        Ok(Ticket { door: self.0.clone(), number, origin, inside: false })
    }

    /// Sends the oldest away, because the system has no more room for connections.
    pub fn make_room(&self, tally: &Tally) {
        let mut state = self.0.state();
        if let Some(oldest) = state.waiting.keys().next().copied() {
            state.send_away(oldest, tally);
        }
    }

    /// Names the task of one that waits, so that it can be sent away.
    pub fn attach(&self, number: u64, task: AbortHandle) {
        if let Some((_, slot)) = self.0.state().waiting.get_mut(&number) {
            *slot = Some(task);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the door")
    }
}

impl State {
    fn send_away(&mut self, number: u64, tally: &Tally) {
        let Some((origin, task)) = self.waiting.remove(&number) else { return };
        if let Some(at) = self.origins.get_mut(&origin) {
            at.waiting.remove(&number);
        }
        if let Some(task) = task {
            task.abort();
        }
        tally.refused(Refusal::HalfOpen, &origin.0, &"made room for newer connections");
    }

    /// Forgets addresses that have nobody here and have rested.
    fn tidy(&mut self, now: Instant) {
        if self.origins.len() >= self.tidy_at {
            self.origins.retain(|_, at| at.live > 0 || !at.waiting.is_empty() || !at.pace.is_rested(now));
            self.tidy_at = self.origins.len() + TIDY_AFTER;
        }
    }
}

/// One connection's standing: at the door first, inside later; given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    door: Arc<Shared>,
    number: u64,
    origin: Origin,
    inside: bool,
}

impl Ticket {
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Goes inside. One that replaces a connection of its own needs no free place.
    pub fn enter(&mut self, replaces: bool) -> Result<(), Refusal> {
        let mut state = self.door.state();
        if !replaces && state.live >= self.door.limits.connections {
            return Err(Refusal::Full);
        }
        let sent_away = state.waiting.remove(&self.number).is_none();
        if sent_away {
            return Err(Refusal::HalfOpen);
        }
        state.live += 1;
        if let Some(at) = state.origins.get_mut(&self.origin) {
            at.waiting.remove(&self.number);
            at.live += 1;
        }
        self.inside = true;
        Ok(())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.door.state();
        if self.inside {
            state.live -= 1;
        } else {
            state.waiting.remove(&self.number);
        }
        if let Some(at) = state.origins.get_mut(&self.origin) {
            at.waiting.remove(&self.number);
            at.live -= usize::from(self.inside);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AddressLimits;

    fn door(half_open: usize, per_address: AddressLimits) -> (Door, Tally) {
        let limits = Limits { half_open, per_address, connections: 3, ..Limits::default() };
        (Door::new(limits), Tally::default())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn an_address_is_what_one_party_has() {
        assert_eq!(Origin::of(ip("::ffff:10.1.2.3")), Origin::of(ip("10.1.2.3")));
        assert_eq!(Origin::of(ip("2001:db8:1:2::1")), Origin::of(ip("2001:db8:1:2:ffff::9")));
        assert_ne!(Origin::of(ip("2001:db8:1:2::1")), Origin::of(ip("2001:db8:1:3::1")));
    }

    #[tokio::test]
    async fn the_oldest_at_a_full_door_goes_and_those_inside_stay() {
        let (door, tally) = door(2, AddressLimits { half_open: 9, ..Limits::default().per_address });
        let mut inside = door.knock(ip("10.0.0.1"), &tally).unwrap();
        inside.enter(false).unwrap();
        let mut oldest = door.knock(ip("10.0.0.2"), &tally).unwrap();
        let mut second = door.knock(ip("10.0.0.3"), &tally).unwrap();
        let mut newest = door.knock(ip("10.0.0.4"), &tally).unwrap();
        assert_eq!(oldest.enter(false), Err(Refusal::HalfOpen));
        assert_eq!((second.enter(false), newest.enter(false)), (Ok(()), Ok(())));
        assert_eq!(tally.of(Refusal::HalfOpen), 1);
        let mut late = door.knock(ip("10.0.0.5"), &tally).unwrap();
        assert_eq!(late.enter(false), Err(Refusal::Full));
        assert_eq!(late.enter(true), Ok(()), "it takes over its own place");
    }

    #[tokio::test]
    async fn one_address_has_its_own_share() {
        let per_address = AddressLimits { connections: 1, half_open: 1, per_second: 3 };
        let (door, tally) = door(9, per_address);
        let (one, other) = (ip("2001:db8::1"), ip("10.0.0.2"));
        let mut first = door.knock(one, &tally).unwrap();
        let mut second = door.knock(ip("2001:db8::2"), &tally).unwrap();
        assert_eq!(first.enter(false), Err(Refusal::HalfOpen), "the same half of an IPv6 address");
        second.enter(false).unwrap();
        assert_eq!(door.knock(one, &tally).err(), Some(Refusal::AddressFull));
        assert_eq!(door.knock(one, &tally).err(), Some(Refusal::AddressRate));
        assert!(door.knock(other, &tally).is_ok());
    }

    #[tokio::test]
    async fn addresses_that_left_are_forgotten() {
        let (door, tally) = door(9, Limits::default().per_address);
        let start = Instant::now();
        let mut known = 0;
        for number in 0..100 * TIDY_AFTER as u32 {
            let at = start + std::time::Duration::from_millis(number.into());
            let _ = door.knock_at(IpAddr::V4(number.into()), at, &tally);
            known = known.max(door.0.state().origins.len());
        }
        assert!(door.0.state().waiting.is_empty());
        assert!(known < 5 * TIDY_AFTER, "{known}");
    }
}
