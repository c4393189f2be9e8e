//! The agent's end of the link to one sensor node: who is there, what is new, what is acknowledged, what is asked.
//!
//! One [`Station`] per line. It is told what comes and when, and says what to send and what to store; see
//! `tributary_wire::link` for the protocol.

mod action;
mod delivery;
mod orders;
mod raw;

use std::time::Duration;

use tributary_wire::Micros;
use tributary_wire::link::{
    ClockOffset, Down, DownV1, LINK_VERSION, OLDEST_LINK_VERSION, Order, Receiver, Reception, Record, Refusal, Up,
    UpV1, negotiate,
};

use crate::Now;
pub use action::{Action, Begun, Counts};
pub use delivery::{Delivered, Delivery, End, Parcel, Progress};
pub use orders::Orders;
pub use raw::{Assembled, RawAssembly, RawWindow};

/// The time is asked so often once it is known: it is the agent's sign of life, three of which a node misses before it
/// calls again.
const TIME_EVERY: Duration = Duration::from_secs(2);
/// And so often at first: the shortest of some exchanges says most.
const TIME_AT_FIRST: Duration = Duration::from_millis(200);
/// An unknown node is asked who it is at most so often.
const WHO_EVERY: Duration = Duration::from_secs(1);
/// Damage is answered at most so often.
const DAMAGE_EVERY: Duration = Duration::from_millis(5);
/// A node that says nothing for so long is away: it sends records of health every ten seconds.
const AWAY: Duration = Duration::from_secs(25);

#[derive(Debug)]
struct Session {
    number: u32,
    /// `None` until the first record of a resumed session says where it is.
    receiver: Option<Receiver>,
    clock: ClockOffset,
    answers: u32,
    time_due: Duration,
}

/// The agent's end of one line.
#[derive(Debug)]
pub struct Station {
    /// The node that belongs on this line; `None`: whoever is there.
    name: Option<String>,
    session: Option<Session>,
    heard: Option<Duration>,
    who_due: Duration,
    acknowledge: bool,
    damage_due: Duration,
    orders: Orders,
    delivery: Delivery,
    counts: Counts,
}

impl Station {
    /// One that nobody has spoken to yet. `orders_from` is higher than any order number given before to this node:
    /// seconds of a clock will do.
    pub fn new(name: Option<String>, orders_from: u32) -> Self {
        Self {
            name,
            session: None,
            heard: None,
            who_due: Duration::ZERO,
            acknowledge: false,
            damage_due: Duration::ZERO,
            orders: Orders::new(orders_from),
            delivery: Delivery::default(),
            counts: Counts::default(),
        }
    }

    /// A message came. `fresh` is a number for a new session, drawn by chance, not 0.
    pub fn heard<'a>(&mut self, now: Now, message: Up<'a>, fresh: u32) -> Vec<Action<'a>> {
        match message {
            Up::Hello { lowest, highest, session, node } => {
                self.greet(now, lowest, highest, session, node.as_str(), fresh)
            }
            Up::V1(UpV1::Time { asked, uptime }) => {
                if let Some(session) = &mut self.session {
                    self.heard = Some(now.monotonic);
                    session.clock.answered(Micros(asked), uptime, now.wall);
                    session.answers += 1;
                    let wait = if session.answers < 4 { TIME_AT_FIRST } else { TIME_EVERY };
                    session.time_due = now.monotonic + wait;
                }
                Vec::new()
            }
            Up::V1(UpV1::Record { session, number, behind, uptime, record }) => {
                self.record(now, session, number, behind, uptime, record)
            }
            Up::V1(UpV1::Blob { blob, step }) => {
                self.delivery.answered(now.monotonic, blob, step).map(Action::Delivered).into_iter().collect()
            }
            Up::V1(UpV1::Holds(holds)) => {
                let delivered = self.delivery.holds(now.monotonic, &holds).map(Action::Delivered);
                [Action::Holds(holds)].into_iter().chain(delivered).collect()
            }
        }
    }

    fn greet<'a>(
        &mut self,
        now: Now,
        lowest: u8,
        highest: u8,
        session: u32,
        node: &str,
        fresh: u32,
    ) -> Vec<Action<'a>> {
        if self.name.as_deref().is_some_and(|name| name != node) {
            self.counts.strange += 1;
            return vec![Action::Send(Down::Refused(Refusal::Name))];
        }
        let Some(version) = negotiate(lowest, highest) else {
            self.counts.strange += 1;
            let refusal = Refusal::Version { lowest: OLDEST_LINK_VERSION, highest: LINK_VERSION };
            return vec![Action::Send(Down::Refused(refusal))];
        };
        self.heard = Some(now.monotonic);
        let resumed = session != 0;
        let number = if resumed { session } else { fresh };
        let welcome = Action::Send(Down::Welcome { version, session: number });
        if self.session.as_ref().is_some_and(|known| known.number == number) {
            return vec![welcome];
        }
        self.note_lost();
        self.acknowledge = false;
        let receiver = (!resumed).then(Receiver::default);
        let (clock, time_due) = (ClockOffset::default(), now.monotonic);
        self.session = Some(Session { number, receiver, clock, answers: 0, time_due });
        self.orders.begin();
        self.delivery.begin();
        vec![welcome, Action::Begun(Begun { node: node.to_owned(), session: number, resumed })]
    }

    fn record<'a>(
        &mut self,
        now: Now,
        of: u32,
        number: u32,
        behind: u32,
        uptime: u64,
        record: Record<'a>,
    ) -> Vec<Action<'a>> {
        let Some(session) = self.session.as_mut().filter(|session| session.number == of) else {
            self.counts.strange += 1;
            return self.who(now).map(Action::Send).into_iter().collect();
        };
        self.heard = Some(now.monotonic);
        if let Record::About(about) = record {
            if number != 0 {
                let receiver = session.receiver.get_or_insert_with(|| Receiver::resume(number, behind));
                if receiver.take(number, behind) == Reception::New {
                    receiver.store(number);
                    self.counts.taken += 1;
                }
                self.acknowledge = true;
            }
            return vec![Action::About(about)];
        }
        // Without a clock it has no time; it comes again, and by then there is one.
        let Some(wall) = session.clock.wall(uptime) else { return Vec::new() };
        let receiver = session.receiver.get_or_insert_with(|| Receiver::resume(number, behind));
        match receiver.take(number, behind) {
            Reception::New => {
                if let Record::Done { order, outcome } = record {
                    receiver.store(number);
                    self.counts.taken += 1;
                    self.acknowledge = true;
                    let known = self.orders.done(order);
                    return known.then_some(Action::Ordered { order, outcome }).into_iter().collect();
                }
                vec![Action::Take { session: of, number, wall, record }]
            }
            Reception::Again => {
                self.counts.repeated += 1;
                self.acknowledge = true;
                Vec::new()
            }
            Reception::Beyond => {
                self.counts.strange += 1;
                Vec::new()
            }
        }
    }

    /// A frame came that was damaged: whoever sent it is told what is here, and so what is missing. At most once in the
    /// time that a frame takes, or noise would fill the line.
    pub fn damaged(&mut self, now: Now) {
        if now.monotonic >= self.damage_due {
            self.damage_due = now.monotonic + DAMAGE_EVERY;
            self.acknowledge |= self.session.is_some();
        }
    }

    /// Asks who is there, and so what it is; `None` when that was asked a moment ago.
    pub fn who(&mut self, now: Now) -> Option<Down<'static>> {
        let due = now.monotonic >= self.who_due;
        if due {
            self.who_due = now.monotonic + WHO_EVERY;
        }
        due.then_some(Down::Who)
    }

    /// A taken record is durable, or needs no keeping.
    pub fn stored(&mut self, session: u32, number: u32) {
        if let Some(receiver) = self.receiver(session) {
            receiver.store(number);
            self.counts.taken += 1;
            self.acknowledge = true;
        }
    }

    /// A taken record could not be stored: it shall come again.
    pub fn give_back(&mut self, session: u32, number: u32) {
        if let Some(receiver) = self.receiver(session) {
            receiver.give_back(number);
        }
    }

    fn receiver(&mut self, number: u32) -> Option<&mut Receiver> {
        self.session.as_mut().filter(|session| session.number == number)?.receiver.as_mut()
    }

    fn note_lost(&mut self) {
        self.counts.lost += self.lost_now();
    }

    fn lost_now(&self) -> u64 {
        let receiver = self.session.as_ref().and_then(|session| session.receiver.as_ref());
        receiver.map_or(0, |receiver| receiver.lost().into())
    }

    /// Gives the node something to do once; its number.
    pub fn order(&mut self, order: Order) -> u32 {
        self.orders.add(order)
    }

    /// Brings a blob to the node; [`Action::Delivered`] says what became of it.
    pub fn bring(&mut self, parcel: Parcel) {
        self.delivery.bring(parcel);
    }

    /// How far the blob on its way is.
    pub fn progress(&self) -> Option<Progress> {
        self.delivery.progress()
    }

    /// What is due: acknowledgements, the time, orders, parts of blobs. Call after every message and at
    /// [`Self::next_wake`].
    pub fn due(&mut self, now: Now) -> Vec<Down<'_>> {
        let Some(session) = &mut self.session else { return Vec::new() };
        let mut due = Vec::new();
        if core::mem::take(&mut self.acknowledge)
            && let Some(receiver) = &session.receiver
        {
            let (through, scattered) = receiver.acknowledged();
            due.push(Down::V1(DownV1::Ack { session: session.number, through, scattered }));
        }
        if now.monotonic >= session.time_due {
            session.time_due = now.monotonic + if session.answers < 4 { TIME_AT_FIRST } else { TIME_EVERY };
            due.push(Down::V1(DownV1::Time { asked: now.wall.0 }));
        }
        if let Some((number, order)) = self.orders.due(now.monotonic) {
            due.push(Down::V1(DownV1::Order { session: session.number, number, order }));
        }
        due.extend(self.delivery.due(now.monotonic).map(Down::V1));
        due
    }

    /// When [`Self::due`] may have something again.
    pub fn next_wake(&self) -> Option<Duration> {
        let session = self.session.as_ref()?;
        [Some(session.time_due), self.orders.next_wake(), self.delivery.next_wake()].into_iter().flatten().min()
    }

    /// The line was lost: the node's session goes on when it is back.
    pub fn cut(&mut self) {
        self.heard = None;
    }

    /// Whether the node was heard lately.
    pub fn is_there(&self, now: Now) -> bool {
        self.heard.is_some_and(|heard| now.monotonic.saturating_sub(heard) < AWAY)
    }

    /// The session, when there is one.
    pub fn session(&self) -> Option<u32> {
        self.session.as_ref().map(|session| session.number)
    }

    /// How far off the node's times may be, in microseconds.
    pub fn clock_error(&self) -> Option<u64> {
        self.session.as_ref()?.clock.error()
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        Counts { lost: self.counts.lost + self.lost_now(), ..self.counts }
    }
}

#[cfg(test)]
mod delivery_tests;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
