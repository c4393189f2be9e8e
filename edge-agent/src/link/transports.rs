//! Carries out what [`Choice`] decides: dials, probes, and tells it what came of it.

use std::sync::Arc;
use std::time::Duration;

use edge_agent_core::transport::{Choice, End, Failure, Next, Transport, TransportSettings};
use tokio::task::JoinHandle;
use tributary_process::clock::Clock;

use super::connection::LinkError;
use super::dial::{self, Bytes, DialError};
use super::quic::{Lifeline, Quic, Stream};
use super::{FileStreams, Link, LinkConfig, LinkStatus, Way};
use crate::identity::{Current, Identity};
use crate::words::in_words;

/// The ways to the hub, and what is known of them.
pub(super) struct Transports {
    way: Way,
    config: LinkConfig,
    choice: Choice,
    quic: Arc<Quic>,
    /// What the attempt or connection of this moment goes over; none: plain.
    over: Option<Transport>,
    lifeline: Option<Lifeline>,
    /// A handshake that goes on beside the connection that stands.
    probe: Option<JoinHandle<Result<Stream, DialError>>>,
    /// The one that worked, for the next attempt.
    ready: Option<Stream>,
    files: FileStreams,
    status: Arc<LinkStatus>,
    clock: Arc<dyn Clock>,
}

impl Transports {
    pub(super) fn new(link: &Link, seed: u64) -> Self {
        let config = link.config;
        let settings =
            TransportSettings { probe: config.probe.0, probe_cap: config.probe_cap.0, holds: config.quic_holds.0 };
        Self {
            way: link.way.clone(),
            config,
            choice: Choice::new(true, true, settings, seed),
            quic: Arc::new(Quic::new(config.quic_idle.0)),
            over: None,
            lifeline: None,
            probe: None,
            ready: None,
            files: link.files.clone(),
            status: link.status.clone(),
            clock: link.clock.clone(),
        }
    }

    fn now(&self) -> Duration {
        Duration::from_micros(self.clock.monotonic())
    }

    /// A stream over the transport whose turn it is.
    pub(super) async fn dial(&mut self) -> Result<Box<dyn Bytes>, LinkError> {
        self.lifeline = None;
        match &self.way {
            Way::None { .. } => Err(LinkError::NoHub),
            Way::Plain(address) => {
                self.over = None;
                Ok(dial::plain(address, self.config.connect_timeout.0).await?)
            }
            Way::Secure(identity) => {
                let current = identity.current();
                self.choice.offered(current.reach.quic.is_some(), current.reach.tls.is_some());
                self.over = Some(self.choice.next(self.now()));
                self.dial_secure(&current).await
            }
        }
    }

    async fn dial_secure(&mut self, current: &Current) -> Result<Box<dyn Bytes>, LinkError> {
        let settings = current.mqtt.clone();
        match (self.over, &current.reach.quic, &current.reach.tls) {
            (Some(Transport::Quic), Some(address), _) => {
                let stream = match self.ready.take().filter(Stream::is_open) {
                    Some(ready) => ready,
                    None => dial::quic(self.quic.clone(), settings, address, self.config.quic_timeout.0).await?,
                };
                self.lifeline = Some(stream.lifeline());
                Ok(Box::new(stream))
            }
            (_, _, Some(address)) => Ok(dial::tls(settings, address, self.config.connect_timeout.0).await?),
            _ => Err(LinkError::NoAddress),
        }
    }

    /// Whom the attempt of this moment goes to, for logs.
    pub(super) fn address(&self) -> String {
        match (&self.way, self.over) {
            (Way::None { .. }, _) => String::new(),
            (Way::Plain(address), _) => address.clone(),
            (Way::Secure(identity), over) => {
                let reach = &identity.current().reach;
                let address = if over == Some(Transport::Quic) { &reach.quic } else { &reach.tls };
                address.clone().unwrap_or_default()
            }
        }
    }

    /// Name of the transport of this moment.
    pub(super) fn name(&self) -> &'static str {
        self.over.map_or("plain", Transport::name)
    }

    /// The connection that was dialled stands.
    pub(super) fn connected(&mut self) {
        let now = self.now();
        if let Some(over) = self.over {
            self.choice.connected(now, over);
        }
        self.files.over(self.lifeline.clone());
        self.status.connected(self.name(), self.clock.wall());
        self.show_probe();
    }

    /// The attempt failed or the connection ended; when to make the next attempt.
    pub(super) fn ended(&mut self, error: &LinkError) -> Next {
        self.probe.take().inspect(JoinHandle::abort);
        self.files.over(None);
        let stood = self.choice.in_use().is_some();
        let own = matches!(error, LinkError::Moving | LinkError::NewCertificate);
        let Some(over) = self.over else {
            self.status.failed("plain", in_words(error));
            return Next::Wait;
        };
        if own {
            self.choice.ended(self.now(), End::Closed);
            return Next::AtOnce;
        }
        self.status.failed(over.name(), in_words(error));
        if stood {
            let end = self.lifeline.take().and_then(|lifeline| lifeline.end());
            return self.choice.ended(self.now(), end.unwrap_or_else(|| error.end()));
        }
        self.choice.failed(over, if error.is_refusal() { Failure::Refused } else { Failure::Network })
    }

    /// Returns when there is a better transport than the one in use. May be dropped and called again at any time.
    pub(super) async fn better(&mut self) {
        let Way::Secure(identity) = &self.way else { return std::future::pending().await };
        let identity = identity.clone();
        loop {
            self.begin_probe(&identity).await;
            let Some(probe) = &mut self.probe else { return std::future::pending().await };
            let ended = probe.await;
            self.probe = None;
            let now = self.now();
            let works = match ended {
                Ok(Ok(stream)) => {
                    self.ready = Some(stream);
                    true
                }
                Ok(Err(error)) => {
                    let words = in_words(&error);
                    tracing::debug!(error = %words, "QUIC still does not get through");
                    self.status.failed(Transport::Quic.name(), words);
                    false
                }
                Err(_) => false,
            };
            self.choice.probed(now, works);
            self.status.probed(works);
            self.show_probe();
            if works {
                return;
            }
        }
    }

    /// Waits until a probe is due and begins it, unless one is under way.
    async fn begin_probe(&mut self, identity: &Identity) {
        if self.probe.is_some() {
            return;
        }
        let Some(due) = self.choice.next_probe() else { return };
        tokio::time::sleep(due.saturating_sub(self.now())).await;
        let current = identity.current();
        let Some(address) = current.reach.quic.clone() else { return };
        let (quic, settings, patience) = (self.quic.clone(), current.mqtt.clone(), self.config.quic_timeout.0);
        self.choice.probing();
        self.probe = Some(tokio::spawn(async move { dial::quic(quic, settings, &address, patience).await }));
    }

    fn show_probe(&self) {
        let due = self.choice.next_probe().map(|due| due.saturating_sub(self.now()));
        self.status.next_probe(due.map(|wait| self.clock.wall().saturating_add(wait.as_micros() as i64)));
    }
}

impl Drop for Transports {
    fn drop(&mut self) {
        self.probe.take().inspect(JoinHandle::abort);
    }
}
