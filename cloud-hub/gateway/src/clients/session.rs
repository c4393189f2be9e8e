//! What a client follows and what is on its way to it: it may outlive the connection.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;
use rumqttd::protocol::{
    Filter, Packet, PubRec, PubRecReason, PubRel, PubRelReason, PublishProperties, RetainForwardRule,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::router::{Arrived, Link};
use super::{Clients, Message, seconds_left};
use crate::Topics;
use crate::packets::{self, Packets};
use crate::topics;

/// Filters that one client may follow.
const FOLLOWING: usize = 100;

/// The group and the filter of a shared subscription.
pub(super) fn shared(filter: &str) -> Option<(&str, &str)> {
    filter.strip_prefix("$share/")?.split_once('/')
}

#[derive(Debug)]
struct Following {
    filter: String,
    quality: u8,
    no_local: bool,
    as_published: bool,
    /// The client's own number for it.
    identifier: Option<usize>,
}

/// A message on its way to the client.
#[derive(Debug)]
struct Outgoing {
    topic: Bytes,
    payload: Bytes,
    quality: u8,
    retain: bool,
    properties: PublishProperties,
    expires: Option<Instant>,
}

/// A client's session.
#[derive(Debug)]
pub(crate) struct Session {
    pub number: u64,
    pub link: Link,
    following: HashMap<usize, Following>,
    next_following: usize,
    waiting: VecDeque<Outgoing>,
    /// In the order in which they were sent. After its PUBREC a message is only a number, until its PUBCOMP.
    in_flight: VecDeque<(u16, Option<Outgoing>)>,
    next_id: u16,
    /// What came with quality 2 and is not complete.
    pub received: HashSet<u16>,
}

impl Session {
    pub fn new(number: u64, link: Link) -> Self {
        Self {
            number,
            link,
            following: HashMap::new(),
            next_following: 1,
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
            next_id: 1,
            received: HashSet::new(),
        }
    }

    /// Follows a filter that is valid and allowed; `false` when there are too many.
    pub fn follow(&mut self, filter: &Filter, identifier: Option<usize>, clients: &Clients) -> bool {
        let before = self.following.iter().find(|(_, following)| following.filter == filter.path);
        let before = before.map(|(number, _)| *number);
        let number = match before {
            Some(number) => number,
            None => {
                if self.following.len() == FOLLOWING || !self.link.subscribe(&filter.path, self.next_following) {
                    return false;
                }
                self.next_following += 1;
                self.next_following - 1
            }
        };
        let following = Following {
            filter: filter.path.clone(),
            quality: filter.qos as u8,
            no_local: filter.nolocal,
            as_published: filter.preserve_retain,
            identifier,
        };
        let wanted = match filter.retain_forward_rule {
            RetainForwardRule::OnEverySubscribe => true,
            RetainForwardRule::OnNewSubscribe => before.is_none(),
            RetainForwardRule::Never => false,
        };
        if wanted && shared(&filter.path).is_none() {
            let found = clients.retained().matching(&filter.path, Instant::now());
            self.waiting.extend(found.into_iter().map(|message| following.outgoing(message, true)));
        }
        self.following.insert(number, following);
        true
    }

    /// Whether these rights cover everything that it follows.
    pub fn may_go_on(&self, rights: &dyn Topics) -> bool {
        let mut filters = self.following.values().filter_map(|following| topics::filter(&following.filter));
        filters.all(|finds| rights.may_follow(finds))
    }

    /// Whether it was followed.
    pub fn unfollow(&mut self, filter: &str) -> bool {
        let number = self.following.iter().find(|(_, following)| following.filter == filter).map(|(number, _)| *number);
        let Some(number) = number else { return false };
        self.following.remove(&number);
        self.link.unsubscribe(filter);
        true
    }

    /// Takes what the router has for it.
    pub fn arrived(&mut self, arrived: Vec<Arrived>) {
        for Arrived { subscription, message } in arrived {
            // Some are still on their way after an UNSUBSCRIBE.
            let Some(following) = self.following.get(&subscription) else { continue };
            if following.no_local && message.origin == self.number {
                continue;
            }
            let retain = following.as_published && message.retain;
            self.waiting.push_back(following.outgoing(message, retain));
        }
    }

    /// Whether everything that arrived was sent.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Sends again what the last connection left open.
    pub fn resend<S: AsyncRead + AsyncWrite + Unpin>(&mut self, packets: &mut Packets<S>, bytes_max: usize) {
        self.in_flight.retain(|(packet_id, sent)| match sent {
            Some(outgoing) => packets.put_within(outgoing.packet(*packet_id, true), bytes_max),
            None => {
                packets.put(released(*packet_id, PubRelReason::Success));
                true
            }
        });
    }

    /// Sends what waits, as far as the client's window and one write allow.
    pub fn send<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        packets: &mut Packets<S>,
        (window, bytes_max, chunk): (usize, usize, usize),
    ) {
        while packets.waiting() < chunk
            && let Some(mut outgoing) = self.waiting.pop_front()
        {
            if outgoing.is_over() {
                continue;
            }
            if outgoing.quality == 0 {
                packets.put_within(outgoing.packet(0, false), bytes_max);
                continue;
            }
            if self.in_flight.len() >= window {
                self.waiting.push_front(outgoing);
                return;
            }
            let packet_id = self.packet_id();
            // What is larger than the client takes is thrown away, as if it had been sent.
            if packets.put_within(outgoing.packet(packet_id, false), bytes_max) {
                self.in_flight.push_back((packet_id, Some(outgoing)));
            }
        }
    }

    /// Whether a message could be sent now.
    pub fn has_window(&self, window: usize) -> bool {
        self.in_flight.len() < window
    }

    fn packet_id(&mut self) -> u16 {
        loop {
            let id = self.next_id;
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            if self.in_flight.iter().all(|(used, _)| *used != id) {
                return id;
            }
        }
    }

    pub fn pub_ack(&mut self, packet_id: u16) {
        self.in_flight.retain(|(id, sent)| *id != packet_id || sent.as_ref().is_none_or(|sent| sent.quality == 2));
    }

    /// The answer to a PUBREC.
    pub fn pub_rec(&mut self, received: &PubRec) -> Option<Packet> {
        let refused = !matches!(received.reason, PubRecReason::Success | PubRecReason::NoMatchingSubscribers);
        let Some(place) = self.in_flight.iter().position(|(id, _)| *id == received.pkid) else {
            return Some(released(received.pkid, PubRelReason::PacketIdentifierNotFound));
        };
        if refused {
            self.in_flight.remove(place);
            return None;
        }
        self.in_flight[place].1 = None;
        Some(released(received.pkid, PubRelReason::Success))
    }

    pub fn pub_comp(&mut self, packet_id: u16) {
        self.in_flight.retain(|(id, sent)| *id != packet_id || sent.is_some());
    }
}

impl Following {
    fn outgoing(&self, message: Message, retain: bool) -> Outgoing {
        let mut properties = message.properties;
        properties.subscription_identifiers = self.identifier.into_iter().collect();
        let quality = message.quality.min(self.quality);
        Outgoing {
            topic: message.topic,
            payload: message.payload,
            quality,
            retain,
            properties,
            expires: message.expires,
        }
    }
}

impl Outgoing {
    /// Whether it has expired; else says in it how long it still has.
    fn is_over(&mut self) -> bool {
        let Some(expires) = self.expires else { return false };
        let left = seconds_left(expires, Instant::now());
        self.properties.message_expiry_interval = left;
        left.is_none()
    }

    fn packet(&self, packet_id: u16, again: bool) -> Packet {
        let flags = u8::from(again) << 3 | self.quality << 1 | u8::from(self.retain);
        packets::publish_as(flags, packet_id, &self.topic, &self.payload, Some(self.properties.clone()))
    }
}

fn released(packet_id: u16, reason: PubRelReason) -> Packet {
    Packet::PubRel(PubRel { pkid: packet_id, reason }, None)
}
