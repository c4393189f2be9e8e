//! Stopping: a signal, a drain, a deadline.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// A signal to stop that can be waited for and passed on.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// One that nobody has given yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that SIGTERM and SIGINT give.
    pub fn on_signal() -> std::io::Result<Self> {
        let shutdown = Self::new();
        let given = shutdown.clone();
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            tokio::spawn(async move {
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
                given.give();
            });
        }
        #[cfg(not(unix))]
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                given.give();
            }
        });
        Ok(shutdown)
    }

    /// Gives the signal.
    pub fn give(&self) {
        self.token.cancel();
    }

    /// Whether it was given.
    pub fn is_given(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until it is given.
    pub async fn given(&self) {
        self.token.cancelled().await;
    }

    /// A signal that this one gives too, and that can be given alone.
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token() }
    }

    /// Runs `work` until it ends or the signal is given; `None` when the signal came first.
    pub async fn unless_given<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! { () = self.given() => None, result = work => Some(result) }
    }

    /// Waits for the signal, then gives `drain` that much time; whether it finished.
    pub async fn then_drain(&self, deadline: Duration, drain: impl Future<Output = ()>) -> bool {
        self.given().await;
        tokio::time::timeout(deadline, drain).await.is_ok()
    }
}
