//! Programs that follow what the hub says: alerts and rollouts under `v1/hub/`, many to many, through rumqttd's
//! router. They may only listen.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rumqttd::local::{LinkBuilder, LinkError, LinkRx, LinkTx};
use rumqttd::protocol::{DisconnectReasonCode, Packet, PubAckReason, SubscribeReasonCode};
use rumqttd::{Notification, Router, RouterConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};
use tributary_wire::topic::HUB_PREFIX;

use crate::admission::Topics;
use crate::packets::{self, Ending, Packets};
use crate::session::Rim;
use crate::tally::Refusal;

/// The router keeps its log in memory, one per filter: two segments of 1 MiB hold thousands of alerts.
const SEGMENT_BYTES: usize = 1 << 20;

type Linker = dyn Fn(&str) -> Result<(LinkTx, LinkRx), Box<LinkError>> + Send + Sync;

/// The router and the hub's own link to it.
#[derive(Clone)]
pub(crate) struct Integrations {
    // The router's sender has a type that cannot be named, so a closure holds it.
    linker: Arc<Linker>,
    own: Arc<Mutex<LinkTx>>,
}

impl fmt::Debug for Integrations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Integrations")
    }
}

impl Integrations {
    pub fn start() -> Result<Self, Box<LinkError>> {
        let config = RouterConfig {
            max_connections: 1000,
            max_outgoing_packet_count: 200,
            max_segment_size: SEGMENT_BYTES,
            max_segment_count: 2,
            // Otherwise a publish that nobody follows would disconnect the hub's own link.
            initialized_filters: Some(vec![format!("{HUB_PREFIX}#")]),
            ..Default::default()
        };
        let router = Router::new(0, config).spawn();
        let link = move |client: &str| {
            let builder = LinkBuilder::new(client, router.clone()).dynamic_filters(true);
            builder.build().map(|(sender, receiver, _)| (sender, receiver)).map_err(Box::new)
        };
        let (own, mut receiver) = link("hub")?;
        // Nothing is subscribed on this link; its receiver only has to stay alive and be drained.
        tokio::spawn(async move { while receiver.next().await.is_ok() {} });
        Ok(Self { linker: Arc::new(link), own: Arc::new(Mutex::new(own)) })
    }

    pub fn publish(&self, topic: &str, payload: Bytes) {
        let mut own = self.own.lock().expect("no code panics while it holds the link");
        if let Err(error) = own.try_publish(format!("{HUB_PREFIX}{topic}"), payload) {
            tracing::warn!(topic, %error, "integrations did not get a message");
        }
    }

    /// The router answers on a thread of its own; building a link waits for it.
    async fn link(&self, client: &str) -> Result<(LinkTx, LinkRx), Ending> {
        let (linker, client) = (self.linker.clone(), client.to_owned());
        let linked = tokio::task::spawn_blocking(move || linker(&client)).await;
        linked.ok().and_then(Result::ok).ok_or(Ending::Closed)
    }
}

/// Serves one integration.
pub(crate) async fn follow<S: AsyncRead + AsyncWrite + Unpin>(
    integrations: &Integrations,
    client: &str,
    topics: &dyn Topics,
    keep_alive: Duration,
    packets: &mut Packets<S>,
    rim: &Rim,
) -> Ending {
    let (mut to_router, mut from_router) = match integrations.link(client).await {
        Ok(link) => link,
        Err(ending) => return ending,
    };
    let ending = relay(&mut to_router, &mut from_router, topics, keep_alive, packets, rim).await;
    // The router learns of an ending only by this packet.
    let _ = to_router.send(packets::disconnect(DisconnectReasonCode::NormalDisconnection, "the client left")).await;
    ending
}

async fn relay<S: AsyncRead + AsyncWrite + Unpin>(
    to_router: &mut LinkTx,
    from_router: &mut LinkRx,
    topics: &dyn Topics,
    keep_alive: Duration,
    packets: &mut Packets<S>,
    rim: &Rim,
) -> Ending {
    let silence = keep_alive.mul_f64(1.5);
    let mut deadline = Instant::now() + silence;
    // A client may send on without waiting for its CONNACK.
    if let Err(ending) = take(to_router, topics, packets, rim).await {
        return ending;
    }
    loop {
        if let Err(ending) = packets.flush().await {
            return ending;
        }
        tokio::select! {
            () = rim.shutdown.given() => return Ending::stopping(),
            notification = from_router.next() => match notification {
                Err(_) => return Ending::Closed,
                Ok(None) => {}
                Ok(Some(Notification::Unschedule)) => {
                    if from_router.wake().await.is_err() {
                        return Ending::Closed;
                    }
                }
                Ok(Some(notification)) => {
                    if let Some(packet) = Option::<Packet>::from(notification) {
                        packets.put(packet);
                    }
                }
            },
            filled = packets.fill() => {
                deadline = Instant::now() + silence;
                let taken = match filled {
                    Ok(()) => take(to_router, topics, packets, rim).await,
                    Err(ending) => Err(ending),
                };
                if let Err(ending) = taken {
                    return ending;
                }
            }
            () = sleep_until(deadline) => {
                return Ending::Refused(Refusal::KeepAlive, DisconnectReasonCode::KeepAliveTimeout);
            }
        }
    }
}

async fn take<S: AsyncRead + AsyncWrite + Unpin>(
    to_router: &mut LinkTx,
    topics: &dyn Topics,
    packets: &mut Packets<S>,
    rim: &Rim,
) -> Result<(), Ending> {
    while let Some(packet) = packets.buffered()? {
        match packet {
            Packet::Subscribe(subscribe, properties) => {
                // All or nothing: a mixed answer would need the router's half of it.
                if subscribe.filters.iter().all(|filter| topics.may_follow(&filter.path)) {
                    to_router.send(Packet::Subscribe(subscribe, properties)).await.map_err(|_| Ending::Closed)?;
                } else {
                    rim.connections.tally().count(Refusal::Topic);
                    let codes = vec![SubscribeReasonCode::NotAuthorized; subscribe.filters.len()];
                    packets.put(packets::sub_ack(subscribe.pkid, codes));
                }
            }
            Packet::Publish(..) => refuse(packets, rim),
            Packet::PubAck(..) | Packet::Unsubscribe(..) => {
                to_router.send(packet).await.map_err(|_| Ending::Closed)?;
            }
            Packet::PingReq(_) => packets.put(packets::ping_resp()),
            Packet::Disconnect(..) => return Err(Ending::Closed),
            _ => return Err(Ending::protocol()),
        }
    }
    Ok(())
}

fn refuse<S: AsyncRead + AsyncWrite + Unpin>(packets: &mut Packets<S>, rim: &Rim) {
    rim.connections.tally().count(Refusal::Topic);
    let (packet_id, quality) = packets.publish_head();
    if quality > 0 {
        packets.put(packets::pub_ack(packet_id, PubAckReason::NotAuthorized));
    }
}
