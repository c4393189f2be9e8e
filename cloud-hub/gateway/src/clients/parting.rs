//! What is left of a client whose connection ended: its session for a while, and its will.

use std::time::Duration;

use rumqttd::protocol::{DisconnectReasonCode, LastWill, LastWillProperties, PublishProperties};
use tokio::time::{Instant, sleep_until};
use tributary_process::shutdown::Shutdown;

use super::session::Session;
use super::{Claim, Clients, Hold, Message};
use crate::admission::Topics;
use crate::packets::{self, Ending};
use crate::tally::Refusal;
use crate::{Refused, topics};

/// What a client leaves to be said when it is gone.
pub(super) struct Will {
    message: Message,
    delay: Duration,
}

impl Will {
    pub fn read(will: LastWill, properties: Option<LastWillProperties>, rights: &dyn Topics) -> Result<Self, Refused> {
        let allowed = topics::topic(&will.topic).is_some_and(|topic| rights.may_publish(topic));
        if !allowed {
            let reason = format!("a will on {}", packets::shown(&will.topic));
            return Err(Refused { refusal: Refusal::Topic, reason });
        }
        let delay = properties.as_ref().and_then(|properties| properties.delay_interval).unwrap_or(0);
        let properties = properties.map(|properties| PublishProperties {
            payload_format_indicator: properties.payload_format_indicator,
            message_expiry_interval: properties.message_expiry_interval,
            response_topic: properties.response_topic,
            correlation_data: properties.correlation_data,
            user_properties: properties.user_properties,
            content_type: properties.content_type,
            ..Default::default()
        });
        let properties = properties.unwrap_or_default();
        let message = Message {
            topic: will.topic,
            payload: will.message,
            quality: will.qos as u8,
            retain: will.retain,
            properties,
            expires: None,
            origin: 0,
        };
        Ok(Self { message, delay: Duration::from_secs(delay.into()) })
    }
}

/// What a connection leaves.
pub(super) struct Parting {
    pub session: Session,
    pub clients: Clients,
    /// Seconds that the session is kept.
    pub expiry: u32,
    pub will: Option<Will>,
}

impl Parting {
    /// Keeps, hands over or ends the session.
    pub fn end(self, ended: Result<Ending, Claim>, hold: Hold, shutdown: &Shutdown) -> Ending {
        let Self { mut session, clients, expiry, mut will } = self;
        let ending = match ended {
            Ok(ending) => ending,
            Err(claim) => {
                // One who goes on with the session in time is not gone.
                let will = will.filter(|will| will.delay.is_zero() || !claim.resumes);
                say(will, &clients, &mut session);
                let _ = claim.to.send(session);
                let why = "another connection with this client id took over";
                return Ending::Told(DisconnectReasonCode::SessionTakenOver, why.to_owned());
            }
        };
        if expiry == 0 {
            say(will, &clients, &mut session);
            clients.release(&hold);
            return ending;
        }
        if will.as_ref().is_some_and(|will| will.delay.is_zero()) {
            say(will.take(), &clients, &mut session);
        }
        let until = Instant::now() + Duration::from_secs(expiry.into());
        tokio::spawn(keep(session, clients, will, until, hold, shutdown.clone()));
        ending
    }
}

fn say(will: Option<Will>, clients: &Clients, session: &mut Session) {
    if let Some(will) = will {
        let expires = Message::expiry(&will.message.properties);
        clients.publish(&mut session.link, Message { origin: session.number, expires, ..will.message });
    }
}

/// Keeps a session while its client is away.
async fn keep(
    mut session: Session,
    clients: Clients,
    mut will: Option<Will>,
    until: Instant,
    mut hold: Hold,
    shutdown: Shutdown,
) {
    let mut will_at = will.as_ref().map_or(until, |will| (Instant::now() + will.delay).min(until));
    loop {
        tokio::select! {
            biased;
            Ok(claim) = &mut hold.claims => {
                say(will.filter(|_| !claim.resumes), &clients, &mut session);
                let _ = claim.to.send(session);
                return;
            }
            () = shutdown.given() => return,
            () = sleep_until(will_at), if will.is_some() => {
                say(will.take(), &clients, &mut session);
                will_at = until;
            }
            () = sleep_until(until) => {
                clients.release(&hold);
                return;
            }
        }
    }
}
