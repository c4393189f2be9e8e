//! What a client asks for: to publish, to follow, to follow no longer.

use rumqttd::protocol::{
    DisconnectReasonCode, Packet, PubAckReason, PubRec, PubRecReason, Publish, PublishProperties, Subscribe,
    SubscribeProperties, SubscribeReasonCode, UnsubAckReason, Unsubscribe,
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Message;
use super::serve::Client;
use super::session::shared;
use crate::packets::{self, Ending, Packets};
use crate::session::Rim;
use crate::tally::Refusal;
use crate::topics;

impl Client<'_> {
    pub async fn publish<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        publish: Publish,
        properties: PublishProperties,
        packets: &mut Packets<S>,
        rim: &Rim,
    ) -> Result<(), Ending> {
        let (packet_id, quality) = packets.publish_head();
        if properties.topic_alias.is_some() {
            return Err(Ending::Refused(Refusal::Protocol, DisconnectReasonCode::TopicAliasInvalid));
        }
        if !properties.subscription_identifiers.is_empty() {
            return Err(Ending::protocol());
        }
        let Some(topic) = topics::topic(&publish.topic) else {
            return Err(Ending::Refused(Refusal::Topic, DisconnectReasonCode::TopicNameInvalid));
        };
        let again = quality == 2 && self.session.received.contains(&packet_id);
        let reason = if again {
            PubAckReason::Success
        } else if !self.topics.may_publish(topic) {
            let why = format!("PUBLISH to {}", packets::shown(&publish.topic));
            rim.connections.tally().refused(Refusal::Topic, &"a client", &why);
            PubAckReason::NotAuthorized
        } else {
            if quality == 2 {
                if self.session.received.len() >= rim.limits.receive_maximum.into() {
                    let code = DisconnectReasonCode::ReceiveMaximumExceeded;
                    return Err(Ending::Refused(Refusal::Protocol, code));
                }
                self.session.received.insert(packet_id);
            }
            let Publish { topic, payload, retain, .. } = publish;
            let origin = self.session.number;
            let expires = Message::expiry(&properties);
            let message = Message { topic, payload, quality, retain, properties, expires, origin };
            if !self.clients.publish(&mut self.session.link, message) {
                rim.connections.tally().refused(Refusal::Full, &"a client", &"no room for its retained message");
            }
            PubAckReason::Success
        };
        match quality {
            1 => packets.put(packets::pub_ack(packet_id, reason)),
            2 => {
                let reason = match reason {
                    PubAckReason::Success => PubRecReason::Success,
                    _ => PubRecReason::NotAuthorized,
                };
                packets.put(Packet::PubRec(PubRec { pkid: packet_id, reason }, None));
            }
            _ => {}
        }
        Ok(())
    }

    pub fn subscribe<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        subscribe: &Subscribe,
        properties: Option<SubscribeProperties>,
        packets: &mut Packets<S>,
        rim: &Rim,
    ) -> Result<(), Ending> {
        let identifier = properties.and_then(|properties| properties.id);
        let local = subscribe.filters.iter().any(|filter| filter.nolocal && shared(&filter.path).is_some());
        if identifier == Some(0) || local {
            return Err(Ending::protocol());
        }
        let mut codes = Vec::with_capacity(subscribe.filters.len());
        for filter in &subscribe.filters {
            codes.push(match topics::filter(&filter.path) {
                None => SubscribeReasonCode::TopicFilterInvalid,
                Some(finds) if !self.topics.may_follow(finds) => {
                    let why = format!("SUBSCRIBE to {}", packets::shown(filter.path.as_bytes()));
                    rim.connections.tally().refused(Refusal::Topic, &"a client", &why);
                    SubscribeReasonCode::NotAuthorized
                }
                Some(_) if self.session.follow(filter, identifier, &self.clients) => {
                    SubscribeReasonCode::Success(filter.qos)
                }
                Some(_) => SubscribeReasonCode::QuotaExceeded,
            });
        }
        packets.put(packets::sub_ack(subscribe.pkid, codes));
        Ok(())
    }

    pub fn unsubscribe<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        unsubscribe: &Unsubscribe,
        packets: &mut Packets<S>,
    ) {
        let reasons = unsubscribe.filters.iter().map(|filter| {
            if topics::filter(filter).is_none() {
                UnsubAckReason::TopicFilterInvalid
            } else if self.session.unfollow(filter) {
                UnsubAckReason::Success
            } else {
                UnsubAckReason::NoSubscriptionExisted
            }
        });
        packets.put(packets::unsub_ack(unsubscribe.pkid, reasons.collect()));
    }
}
