//! Over which transport the hub is reached: QUIC where the network lets it through, else TLS.
//!
//! Every attempt to connect is a *round* of at most two tries: the first choice, and at once the other one if the
//! network failed the first. When TLS works where QUIC did not, QUIC is *avoided* for a while; when that while is over,
//! the shell tries it beside the connection that stands (a *probe*), and moves back when it works. Each failure doubles
//! the while. Networks that let handshakes through and kill the connection soon after must not make a device go to and
//! fro: a QUIC connection that was lost early counts as a failure too, and the doubling is forgotten only when one has
//! held for as long as QUIC was avoided last.

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use crate::chance::Chance;

/// Most doublings; the cap is reached long before.
const MAX_LEVEL: u32 = 24;

/// How packets travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// MQTT over QUIC.
    Quic,
    /// MQTT over TLS over TCP.
    Tls,
}

impl Transport {
    /// As in settings, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tls => "tls",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Quic => Self::Tls,
            Self::Tls => Self::Quic,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why an attempt to connect came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nothing answered, or what answered was not the hub's MQTT: another transport may do better.
    Network,
    /// The hub itself said no; it would say so on every transport.
    Refused,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It fell silent.
    Lost,
    /// Either side closed it.
    Closed,
}

/// When to make the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Over the other transport, without waiting.
    AtOnce,
    /// After the usual wait between rounds.
    Wait,
}

/// How patient the choice is.
#[derive(Debug, Clone, Copy)]
pub struct TransportSettings {
    /// The shortest while for which QUIC is avoided.
    pub probe: Duration,
    /// The longest such while, before jitter adds up to half of it.
    pub probe_cap: Duration,
    /// A QUIC connection that is lost sooner than this was killed by the network.
    pub holds: Duration,
}

impl Default for TransportSettings {
    fn default() -> Self {
        Self {
            probe: Duration::from_secs(30),
            probe_cap: Duration::from_secs(3600),
            // Longer than any idle time-out, which passes before a killed connection is known to be lost.
            holds: Duration::from_secs(120),
        }
    }
}

/// Chooses. `now` is monotonic time.
#[derive(Debug, Clone)]
pub struct Choice {
    quic: bool,
    tls: bool,
    settings: TransportSettings,
    chance: Chance,
    /// Failures of QUIC that are not forgotten yet.
    level: u32,
    /// Until when QUIC is not the first choice.
    avoided: Option<Duration>,
    /// What failed already in this round.
    tried: Option<Transport>,
    connected: Option<(Transport, Duration)>,
    probing: bool,
}

impl Choice {
    /// A choice among what the hub offers; QUIC first. With neither, TLS is named and will fail.
    pub fn new(quic: bool, tls: bool, settings: TransportSettings, seed: u64) -> Self {
        Self {
            quic,
            tls,
            settings,
            chance: Chance::new(seed),
            level: 0,
            avoided: None,
            tried: None,
            connected: None,
            probing: false,
        }
    }

    /// The hub's addresses have changed. What is known of the network stays.
    pub fn offered(&mut self, quic: bool, tls: bool) {
        if (quic, tls) != (self.quic, self.tls) {
            (self.quic, self.tls, self.tried) = (quic, tls, None);
        }
    }

    /// Over what to make the next attempt.
    pub fn next(&self, now: Duration) -> Transport {
        match (self.quic, self.tls) {
            (true, false) => Transport::Quic,
            (false, _) => Transport::Tls,
            (true, true) => match self.tried {
                Some(tried) => tried.other(),
                None if self.avoided.is_some_and(|until| now < until) => Transport::Tls,
                None => Transport::Quic,
            },
        }
    }

    /// An attempt came to nothing.
    pub fn failed(&mut self, transport: Transport, failure: Failure) -> Next {
        if failure == Failure::Refused {
            if transport == Transport::Quic {
                // Packets went to and fro.
                self.avoided = None;
            }
            self.tried = None;
            return Next::Wait;
        }
        if self.tried.is_none() && self.quic && self.tls {
            self.tried = Some(transport);
            return Next::AtOnce;
        }
        // Both failed: that says nothing of either, the hub may be away.
        self.tried = None;
        Next::Wait
    }

    /// A connection stands.
    pub fn connected(&mut self, now: Duration, transport: Transport) {
        match transport {
            Transport::Quic => self.avoided = None,
            Transport::Tls if self.tried == Some(Transport::Quic) => self.avoid(now),
            Transport::Tls if self.avoided.is_none() && self.quic => self.avoided = Some(now + self.interval()),
            Transport::Tls => {}
        }
        (self.tried, self.probing, self.connected) = (None, false, Some((transport, now)));
    }

    /// The connection that stood has ended.
    pub fn ended(&mut self, now: Duration, end: End) -> Next {
        (self.tried, self.probing) = (None, false);
        let Some((transport, since)) = self.connected.take() else { return Next::Wait };
        if transport == Transport::Tls {
            return Next::Wait;
        }
        let lived = now.saturating_sub(since);
        if end == End::Lost && lived < self.settings.holds {
            self.avoid(now);
            return if self.tls { Next::AtOnce } else { Next::Wait };
        }
        if lived >= self.settings.holds.max(self.withheld()) {
            self.level = 0;
        }
        Next::Wait
    }

    /// When a probe is due: while the connection stands over TLS, QUIC is on offer, and no probe is under way.
    pub fn next_probe(&self) -> Option<Duration> {
        let over_tls = matches!(self.connected, Some((Transport::Tls, _)));
        (over_tls && self.quic && !self.probing).then_some(self.avoided).flatten()
    }

    /// A probe was begun.
    pub fn probing(&mut self) {
        self.probing = true;
    }

    /// A probe has ended: whether a whole handshake went through. Then the next attempt goes over QUIC, so that the
    /// shell may leave the connection that it has.
    pub fn probed(&mut self, now: Duration, works: bool) {
        self.probing = false;
        if works {
            self.avoided = None;
        } else {
            self.avoid(now);
        }
    }

    /// The transport of the connection that stands, and since when.
    pub fn in_use(&self) -> Option<(Transport, Duration)> {
        self.connected
    }

    /// How long QUIC was avoided last.
    fn withheld(&self) -> Duration {
        match self.level {
            0 => Duration::ZERO,
            level => self.settings.probe.saturating_mul(1 << (level - 1)).min(self.settings.probe_cap),
        }
    }

    fn avoid(&mut self, now: Duration) {
        self.level = (self.level + 1).min(MAX_LEVEL);
        self.avoided = Some(now + self.interval());
    }

    /// A fleet that lost UDP at one instant must not come back at one instant.
    fn interval(&mut self) -> Duration {
        let base = self.withheld().max(self.settings.probe);
        self.chance.between(base, base + base / 2)
    }
}
