//! rumqttd's router, and how it is kept from what would stop it.
//!
//! The router has one thread for everybody, and some inputs end it or make it grow for ever. So it gets only what is
//! harmless: every topic and filter lies under a prefix of ASCII letters (it cuts the first byte off a topic, wherever
//! characters begin); links are clean and of quality 0 (it expects shared groups that are gone when a persistent one
//! leaves), so acknowledgements, retained messages, wills and sessions never reach it; links take their names from a
//! small pool (it remembers each name it ever saw); and there is a most for filters (it keeps a log for each).
//! What it would lose of a message, its quality, its retain flag, when it expires and who sent it, travels in a user property.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rumqttd::local::{LinkBuilder, LinkError, LinkRx, LinkTx};
use rumqttd::protocol::{
    Disconnect, DisconnectReasonCode, Filter, Packet, Publish, QoS, RetainForwardRule, Subscribe, SubscribeProperties,
    Unsubscribe,
};
use rumqttd::{Forward, Notification, RouterConfig};
use tokio::time::Instant;
use tributary_wire::topic::HUB_PREFIX;

use super::Message;

/// The log of a filter: segments of so many bytes. The oldest goes when there are more.
const SEGMENT_BYTES: usize = 512 << 10;
const SEGMENTS: usize = 2;
/// Clients that are connected or whose session is kept.
const LINKS: usize = 1000;
/// Filters that anybody ever followed.
const FILTERS: usize = 1000;
/// The key of the user property that the hub adds. A client's own with this key are before it and stay.
const TAG: &str = "tributary";

type Linker = dyn Fn(&str) -> Result<(LinkTx, LinkRx), Box<LinkError>> + Send + Sync;

/// The router and the hub's own link to it.
pub(super) struct Router {
    // The router's sender has a type that cannot be named, so a closure holds it.
    linker: Arc<Linker>,
    own: Mutex<LinkTx>,
    shared: Arc<Shared>,
}

struct Shared {
    /// Names of links that ended, and how many were ever made.
    names: Mutex<(Vec<usize>, usize)>,
    filters: Mutex<HashSet<String>>,
    /// Times in tags are milliseconds since this.
    started: Instant,
}

impl Default for Shared {
    fn default() -> Self {
        Self { names: Mutex::default(), filters: Mutex::default(), started: Instant::now() }
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Router")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Router {
    pub fn start() -> Result<Self, Box<LinkError>> {
        let config = RouterConfig {
            max_connections: LINKS + 1,
            max_outgoing_packet_count: 200,
            max_segment_size: SEGMENT_BYTES,
            max_segment_count: SEGMENTS,
            ..Default::default()
        };
        let router = rumqttd::Router::new(0, config).spawn();
        let linker = move |name: &str| {
            let builder = LinkBuilder::new(name, router.clone()).dynamic_filters(true);
            builder.build().map(|(sender, receiver, _)| (sender, receiver)).map_err(Box::new)
        };
        let (own, mut receiver) = linker("hub")?;
        // Nothing is subscribed on this link; its receiver only has to stay alive and be drained.
        tokio::spawn(async move { while receiver.next().await.is_ok() {} });
        Ok(Self { linker: Arc::new(linker), own: Mutex::new(own), shared: Arc::default() })
    }

    pub fn publish_hub(&self, topic: &str, payload: Bytes) {
        let topic = inward(&format!("{HUB_PREFIX}{topic}"));
        if let Err(error) = lock(&self.own).try_publish(topic, payload) {
            tracing::warn!(%error, "integrations did not get a message");
        }
    }

    /// A link for one client; `None` when there are as many as there may be.
    pub async fn link(&self) -> Option<Link> {
        let name = {
            let mut names = lock(&self.shared.names);
            match names.0.pop() {
                Some(name) => name,
                None if names.1 == LINKS => return None,
                None => {
                    names.1 += 1;
                    names.1
                }
            }
        };
        let linker = self.linker.clone();
        // The router answers on a thread of its own; building a link waits for it.
        let linked = tokio::task::spawn_blocking(move || linker(&format!("client{name}"))).await;
        match linked.ok().and_then(Result::ok) {
            Some((to, from)) => Some(Link { to, from, name, arrived: VecDeque::new(), shared: self.shared.clone() }),
            None => {
                lock(&self.shared.names).0.push(name);
                None
            }
        }
    }
}

/// What has arrived for a subscription.
pub(super) struct Arrived {
    /// The number that the subscription was given.
    pub subscription: usize,
    pub message: Message,
}

/// One client's link to the router.
pub(super) struct Link {
    to: LinkTx,
    from: LinkRx,
    name: usize,
    arrived: VecDeque<Notification>,
    shared: Arc<Shared>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Link {
    /// Waits for messages; several at once where several are there. Safe to drop at any time. `None`: the router is gone.
    pub async fn next(&mut self) -> Option<Vec<Arrived>> {
        loop {
            let first = match self.arrived.pop_front() {
                Some(first) => Some(first),
                None => self.from.next().await.ok()?,
            };
            let mut arrived = Vec::new();
            let mut next = first;
            while let Some(notification) = next {
                match notification {
                    Notification::Forward(forward) => arrived.extend(read(forward, self.shared.started)),
                    // Its buffer for this link is full: it goes on when it is told that there is room.
                    Notification::Unschedule => {
                        if arrived.is_empty() {
                            self.from.wake().await.ok()?;
                        } else {
                            self.arrived.push_back(Notification::Unschedule);
                            return Some(arrived);
                        }
                    }
                    // Its acknowledgements are not ours.
                    _ => {}
                }
                // What is here already, without waiting for more.
                next = ready(self.from.next()).and_then(Result::ok).flatten();
            }
            if !arrived.is_empty() {
                return Some(arrived);
            }
        }
    }

    pub fn publish(&mut self, message: Message) {
        let topic = inward_bytes(&message.topic);
        let mut properties = message.properties;
        let expires = message.expires.map(|expires| (expires - self.shared.started).as_millis());
        let expires = expires.map_or_else(String::new, |expires| expires.to_string());
        let tag = format!("{} {} {} {expires}", message.quality, u8::from(message.retain), message.origin);
        properties.user_properties.push((TAG.to_owned(), tag));
        let publish = Publish::new(topic, message.payload, false);
        self.send(Packet::Publish(publish, Some(properties)));
    }

    /// Follows a filter under a number; `false` when there are as many filters as there may be.
    pub fn subscribe(&mut self, filter: &str, number: usize) -> bool {
        let filter = inward_filter(filter);
        {
            let mut filters = lock(&self.shared.filters);
            if !filters.contains(&filter) {
                if filters.len() == FILTERS {
                    return false;
                }
                filters.insert(filter.clone());
            }
        }
        let filter = Filter {
            path: filter,
            qos: QoS::AtMostOnce,
            nolocal: false,
            preserve_retain: false,
            retain_forward_rule: RetainForwardRule::Never,
        };
        let properties = SubscribeProperties { id: Some(number), user_properties: Vec::new() };
        self.send(Packet::Subscribe(Subscribe { pkid: 1, filters: vec![filter] }, Some(properties)));
        true
    }

    pub fn unsubscribe(&mut self, filter: &str) {
        self.send(Packet::Unsubscribe(Unsubscribe { pkid: 1, filters: vec![inward_filter(filter)] }, None));
    }

    fn send(&mut self, packet: Packet) {
        // Nothing in it waits but a lock and, while a thousand events are ahead, the router's thread.
        let _ = ready(self.to.send(packet));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The router learns of an ending only by this packet.
        self.send(Packet::Disconnect(Disconnect { reason_code: DisconnectReasonCode::NormalDisconnection }, None));
        lock(&self.shared.names).0.push(self.name);
    }
}

/// What a future has to say without waiting.
fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

fn read(forward: Forward, started: Instant) -> Option<Arrived> {
    let mut properties = forward.properties?;
    let subscription = properties.subscription_identifiers.pop()?;
    properties.subscription_identifiers.clear();
    let tag = properties.user_properties.pop_if(|(key, _)| key == TAG);
    // What the hub publishes has none.
    let (quality, retain, origin, expires) = tag.and_then(|(_, tag)| read_tag(&tag)).unwrap_or((1, false, 0, None));
    let expires = expires.map(|expires| started + expires);
    let topic = forward.publish.topic.slice(PREFIX..);
    let message = Message { topic, payload: forward.publish.payload, quality, retain, properties, expires, origin };
    Some(Arrived { subscription, message })
}

fn read_tag(tag: &str) -> Option<(u8, bool, u64, Option<Duration>)> {
    let mut parts = tag.split(' ');
    let (quality, retain, origin) = (parts.next()?, parts.next()?, parts.next()?);
    let expires = parts.next()?.parse().ok().map(Duration::from_millis);
    Some((quality.parse().ok()?, retain == "1", origin.parse().ok()?, expires))
}

/// Length of the prefixes.
const PREFIX: usize = 2;

/// A topic or a filter as the router gets it. Those that begin with `$` lie apart, so that no wildcard finds them.
fn inward(topic: &str) -> String {
    let prefix = if topic.starts_with('$') { "d/" } else { "t/" };
    [prefix, topic].concat()
}

fn inward_bytes(topic: &[u8]) -> Bytes {
    let prefix: &[u8] = if topic.starts_with(b"$") { b"d/" } else { b"t/" };
    [prefix, topic].concat().into()
}

/// Groups of shared subscriptions are the router's by name alone; ours are by name and filter.
fn inward_filter(filter: &str) -> String {
    match super::session::shared(filter) {
        Some((group, filter)) => {
            let escaped = filter.replace('%', "%25").replace('/', "%2F");
            format!("$share/{group}%{escaped}/{}", inward(filter))
        }
        None => inward(filter),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_come_back_as_they_went_in_and_dollar_topics_lie_apart() {
        assert_eq!(&inward("é/x")[PREFIX..], "é/x");
        assert_eq!(inward_bytes(b"$SYS/x"), inward("$SYS/x").as_bytes());
        assert_ne!(inward("$SYS")[..PREFIX], inward("#")[..PREFIX]);
        assert_eq!(inward_filter("$share/g/a/+"), "$share/g%a%2F+/t/a/+");
        assert_eq!(inward_filter("$share/g/$x"), "$share/g%$x/d/$x");
    }
}
