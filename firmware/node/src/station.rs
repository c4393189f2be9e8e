//! What a node says and hears: calling, answering, obeying.

use tributary_wire::link::{
    Down, DownV1, LINK_VERSION, MAX_FRAME, OLDEST_LINK_VERSION, Order, Outcome, Record, TooLong, Up, UpV1, encode,
    unpack,
};

use crate::measure::Measure;
use crate::node::Action;
use crate::updates::{Care, Updates};

/// The agent asks for the time every two seconds; three of those unheard mean that nobody is there.
const SILENCE: u64 = 6_000_000;
const HELLO_EVERY: u64 = 1_000_000;
/// A node that was refused asks again, in case somebody changed the agent's settings.
const REFUSED_EVERY: u64 = 10_000_000;
/// A restart waits so long for its own receipt.
const RESTART_WITHIN: u64 = 2_000_000;
/// What a sampling rate may be: the accelerometers we know end there.
const RATES: core::ops::RangeInclusive<u32> = 10..=3200;
/// Most windows that one order may ask for.
const RAW_WINDOWS: core::ops::RangeInclusive<u8> = 1..=16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// Nobody answers; the next Hello is due.
    Calling { due: u64 },
    /// Somebody was heard.
    Open { heard: u64 },
}

/// The node's end of the link, and what it measures behind it.
#[derive(Debug)]
pub(crate) struct Station<'a, const AXES: usize, const N: usize, const B: usize> {
    pub(crate) measure: Measure<'a, AXES, N, B>,
    link: Link,
    /// The agent's number for this life of ours; 0: none yet.
    session: u32,
    time: Option<i64>,
    /// A session begins with what the node is, whatever became of the record that says so.
    about_due: bool,
    care: Care<'a>,
    /// The last order that was carried out.
    order: u32,
    rate_wanted: Option<u32>,
    restart_at: Option<u64>,
}

impl<'a, const AXES: usize, const N: usize, const B: usize> Station<'a, AXES, N, B> {
    pub(crate) fn new(measure: Measure<'a, AXES, N, B>) -> Self {
        Self {
            measure,
            link: Link::Calling { due: 0 },
            session: 0,
            time: None,
            about_due: false,
            care: Care::default(),
            order: 0,
            rate_wanted: None,
            restart_at: None,
        }
    }

    pub(crate) fn set_updates(&mut self, updates: &'a mut dyn Updates) {
        self.care.set(updates);
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.link, Link::Open { .. })
    }

    pub(crate) fn hear(&mut self, now: u64, message: Down<'_>) {
        match message {
            Down::Who => self.link = Link::Calling { due: now },
            Down::Welcome { version, session } => {
                let ours = session != 0 && (self.session == 0 || self.session == session);
                if ours && (OLDEST_LINK_VERSION..=LINK_VERSION).contains(&version) {
                    self.session = session;
                    self.link = Link::Open { heard: now };
                    self.measure.records.begin_again();
                    self.about_due = true;
                    self.care.tell_all();
                } else {
                    self.measure.refuse();
                }
            }
            Down::Refused(_) => self.link = Link::Calling { due: now.saturating_add(REFUSED_EVERY) },
            Down::V1(message) => {
                if let Link::Open { heard } = &mut self.link {
                    *heard = now;
                    self.obey(now, message);
                }
            }
        }
    }

    fn obey(&mut self, now: u64, message: DownV1<'_>) {
        match message {
            DownV1::Ack { session, through, scattered } if session == self.session => {
                self.measure.records.stored(now, through, scattered);
                self.care.heard_of(through);
            }
            DownV1::Time { asked } => self.time = Some(asked),
            DownV1::Order { session, number, order } if session == self.session => {
                // Else it is told again because its receipt was late.
                if number > self.order {
                    self.order = number;
                    let outcome = self.execute(now, order);
                    self.measure.records.keep(now, &Record::Done { order: number, outcome });
                }
            }
            DownV1::Offer { blob, kind, length, checksum } => self.care.offer(now, blob, kind, length, checksum),
            DownV1::Part { blob, offset, bytes } => {
                if !self.care.part(now, blob, offset, bytes) {
                    self.measure.refuse();
                }
            }
            DownV1::Ack { .. } | DownV1::Order { .. } => self.measure.refuse(),
        }
    }

    fn execute(&mut self, now: u64, order: Order) -> Outcome {
        match order {
            Order::Rate(rate) if RATES.contains(&rate) => {
                self.rate_wanted = Some(rate);
                self.measure.set_rate(rate, now);
            }
            Order::SendRaw { .. } if !Measure::<AXES, N, B>::CAN_SEND_RAW => return Outcome::Unsupported,
            Order::SendRaw { windows } if RAW_WINDOWS.contains(&windows) => self.measure.raw_windows = windows,
            Order::Rate(_) | Order::SendRaw { .. } => return Outcome::OutOfRange,
            Order::Threshold(score) if self.measure.set_threshold(score, now) => {}
            Order::Threshold(_) => return Outcome::Unsupported,
            Order::Report => {
                self.measure.tell_about(now);
                self.measure.tell_health(now);
                self.care.tell_all();
            }
            Order::Restart => self.restart_at = Some(now.saturating_add(RESTART_WITHIN)),
        }
        Outcome::Done
    }

    pub(crate) fn action(&mut self, now: u64) -> Option<Action> {
        if let Some(rate) = self.rate_wanted.take() {
            return Some(Action::SetRate(rate));
        }
        self.care.test(now, self.measure.health.windows);
        let waiting = self.measure.records.len();
        let asked = self.restart_at.is_some_and(|at| now >= at || waiting == 0);
        let open = self.is_open();
        (self.care.must_restart(now, open, waiting) || asked).then_some(Action::Restart)
    }

    /// Writes the next frame; its length, 0 when there is nothing to say.
    pub(crate) fn next_frame(&mut self, now: u64, frame: &mut [u8; MAX_FRAME]) -> usize {
        if self.measure.tell_health_if_due(now) {
            self.care.tell_all();
        }
        if matches!(self.link, Link::Open { heard } if now.saturating_sub(heard) > SILENCE) {
            self.link = Link::Calling { due: now };
        }
        // Only a message over its limit cannot be written, and no message of ours is.
        let written = match &mut self.link {
            Link::Calling { due } if now >= *due => {
                *due = now.saturating_add(HELLO_EVERY);
                let (lowest, highest) = (OLDEST_LINK_VERSION, LINK_VERSION);
                encode(&Up::Hello { lowest, highest, session: self.session, node: self.measure.identity().name }, frame)
            }
            Link::Calling { .. } => Ok(0),
            Link::Open { .. } => self.next_message(now, frame),
        };
        written.unwrap_or(0)
    }

    fn next_message(&mut self, now: u64, frame: &mut [u8; MAX_FRAME]) -> Result<usize, TooLong> {
        if core::mem::take(&mut self.about_due) {
            let (session, record) = (self.session, Record::About(self.measure.about()));
            return encode(&Up::V1(UpV1::Record { session, number: 0, behind: 0, uptime: now, record }), frame);
        }
        if let Some(asked) = self.time.take() {
            return encode(&Up::V1(UpV1::Time { asked, uptime: now }), frame);
        }
        if let Some(message) = self.care.say() {
            return encode(&Up::V1(message), frame);
        }
        let Some(due) = self.measure.records.due(now) else { return Ok(0) };
        let Some((uptime, record)) = unpack(&due.bytes[..due.length]) else { return Ok(0) };
        let (session, number, behind) = (self.session, due.number, due.behind);
        encode(&Up::V1(UpV1::Record { session, number, behind, uptime, record }), frame)
    }
}
