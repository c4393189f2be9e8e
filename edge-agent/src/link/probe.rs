//! Whether the hub can be reached, tried once, beside the link: a handshake, and nothing said over it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dial::{self, DialError};
use super::quic::Quic;
use crate::identity::TlsSettings;

/// A handshake over TLS; how long it took, with looking up the name.
pub async fn tls(settings: Arc<TlsSettings>, address: &str, patience: Duration) -> Result<Duration, DialError> {
    let began = Instant::now();
    dial::tls(settings, address, patience).await?;
    Ok(began.elapsed())
}

/// A handshake over QUIC, likewise.
pub async fn quic(settings: Arc<TlsSettings>, address: &str, patience: Duration) -> Result<Duration, DialError> {
    let began = Instant::now();
    dial::quic(Arc::new(Quic::new(patience)), settings, address, patience).await?;
    Ok(began.elapsed())
}

/// A connection without encryption, likewise.
pub async fn plain(address: &str, patience: Duration) -> Result<Duration, DialError> {
    let began = Instant::now();
    dial::plain(address, patience).await?;
    Ok(began.elapsed())
}
