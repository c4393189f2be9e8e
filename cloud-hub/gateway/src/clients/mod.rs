//! Clients that are not devices: they speak and listen through rumqttd's router, on the topics that their rights allow.
//!
//! The router carries messages and keeps what a client has not read yet; all else is decided here, because the router
//! knows nothing of rights, acknowledges what it should not, and can be stopped by a topic that begins with `é`
//! (see [`router`]): quality of service, retained messages, wills, sessions that outlive a connection, flow control.
//!
//! Of what MQTT 5 leaves open, these are absent, and a client that asks is told so: topic aliases in either direction,
//! extended authentication, and more than one subscription's identifier on one message (each subscription gets its own
//! copy). Sessions and retained messages live in memory and end with the hub; the most that a client can miss while it
//! is away is what the router's log of a filter holds, about 1 MiB.

mod parting;
mod requests;
mod retained;
mod router;
mod serve;
mod session;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rumqttd::local::LinkError;
use rumqttd::protocol::PublishProperties;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use self::retained::Retained;
use self::router::{Link, Router};
pub(crate) use self::serve::serve;
use self::session::Session;

/// How long a connection that is taken over may take to hand over its session.
const HAND_OVER: Duration = Duration::from_secs(5);

/// A message as a client published it.
#[derive(Debug, Clone)]
struct Message {
    pub topic: Bytes,
    pub payload: Bytes,
    /// As published.
    pub quality: u8,
    pub retain: bool,
    pub properties: PublishProperties,
    /// When nobody should get it any more.
    pub expires: Option<Instant>,
    /// Number of the session that published it; 0 is the hub.
    pub origin: u64,
}

impl Message {
    /// When what was published with these properties expires.
    fn expiry(properties: &PublishProperties) -> Option<Instant> {
        let seconds = properties.message_expiry_interval?;
        Some(Instant::now() + Duration::from_secs(seconds.into()))
    }
}

/// Whole seconds that are left, at least one; `None` when none are.
fn seconds_left(expires: Instant, now: Instant) -> Option<u32> {
    let left = expires.checked_duration_since(now).filter(|left| !left.is_zero())?;
    Some(u32::try_from(left.as_secs()).unwrap_or(u32::MAX).max(1))
}

/// The router, the sessions and the retained messages; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Clients(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    router: Router,
    retained: Mutex<Retained>,
    /// By client id: how to ask whoever holds the session for it.
    sessions: Mutex<HashMap<String, Holder>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Holder {
    number: u64,
    ask: oneshot::Sender<Claim>,
}

/// Somebody wants a session: to go on with it, or to end it.
#[derive(Debug)]
struct Claim {
    pub resumes: bool,
    pub to: oneshot::Sender<Session>,
}

/// The right to hold the session of one client id, until somebody else claims it.
struct Hold {
    pub client: String,
    pub number: u64,
    pub claims: oneshot::Receiver<Claim>,
}

impl Clients {
    pub fn start() -> Result<Self, Box<LinkError>> {
        let shared = Shared {
            router: Router::start()?,
            retained: Mutex::default(),
            sessions: Mutex::default(),
            next: AtomicU64::new(1),
        };
        Ok(Self(Arc::new(shared)))
    }

    /// Publishes what the hub says.
    pub fn publish_hub(&self, topic: &str, payload: Bytes) {
        self.0.router.publish_hub(topic, payload);
    }

    fn retained(&self) -> MutexGuard<'_, Retained> {
        self.0.retained.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Holder>> {
        self.0.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that no session had before.
    fn number(&self) -> u64 {
        self.0.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes a client id over from whoever holds it; with the session it had, if there was one.
    async fn hold(&self, client: String, resumes: bool) -> (Hold, Option<Session>) {
        let (ask, claims) = oneshot::channel();
        let number = self.number();
        let before = self.sessions().insert(client.clone(), Holder { number, ask });
        let hold = Hold { client, number, claims };
        let Some(before) = before else { return (hold, None) };
        let (to, session) = oneshot::channel();
        if before.ask.send(Claim { resumes, to }).is_err() {
            return (hold, None);
        }
        let session = timeout(HAND_OVER, session).await.ok().and_then(Result::ok);
        (hold, session.filter(|_| resumes))
    }

    /// Gives a client id up, unless somebody else has taken it over.
    fn release(&self, hold: &Hold) {
        let mut sessions = self.sessions();
        if sessions.get(&hold.client).is_some_and(|holder| holder.number == hold.number) {
            sessions.remove(&hold.client);
        }
    }

    /// A new session; `None` when the router has no place for it.
    async fn session(&self) -> Option<Session> {
        let link = self.0.router.link().await?;
        Some(Session::new(self.number(), link))
    }

    #[cfg(test)]
    pub async fn session_for_test(&self) -> bool {
        self.session().await.is_some()
    }

    /// Publishes for a client whose right to do so was checked; whether a retained message found its place.
    fn publish(&self, link: &mut Link, mut message: Message) -> bool {
        let kept = !message.retain || self.retained().keep(&message);
        message.properties.topic_alias = None;
        link.publish(message);
        kept
    }
}
