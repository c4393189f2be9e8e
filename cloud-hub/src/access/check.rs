//! Whether a secret that somebody shows counts.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::Notify;
use tributary_process::shutdown::Shutdown;
use tributary_wire::{Micros, Sha256};

use super::attempts::Attempts;
use super::secret::Secret;
use super::sessions::{self, Session};
use super::tokens::{self, ApiToken, Found, Verified, Wish};
use super::{AccessConfig, Role};
use crate::api::gate::Counted;
use crate::catalog::{Catalog, now};

/// How often it is written down when tokens and sessions were last used.
const WRITE_EVERY: Duration = Duration::from_secs(60);
/// Name of the file with the first token, in the folder of keys.
pub const FIRST_TOKEN: &str = "admin.token";

/// Why a call was not let through, for the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It showed nothing.
    Nobody,
    /// Its token does not count.
    Token,
    /// Its session does not count.
    Session,
    /// Its certificate does not count.
    Certificate,
    /// Its role is not enough.
    Role,
    /// A change in a session without proof that the hub's own page made it.
    Forged,
    /// Its address was wrong too often.
    Limited,
    /// On the plain listener, called by a name that is not this machine's.
    Host,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Nobody,
        Self::Token,
        Self::Session,
        Self::Certificate,
        Self::Role,
        Self::Forged,
        Self::Limited,
        Self::Host,
    ];

    /// For metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Token => "token",
            Self::Session => "session",
            Self::Certificate => "certificate",
            Self::Role => "role",
            Self::Forged => "forged",
            Self::Limited => "limited",
            Self::Host => "host",
        }
    }
}

/// Why a token does not count. No secret is ever part of it.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// It is no token, none of ours, revoked or expired.
    #[error("{0}")]
    Wrong(String),
    /// This address was wrong too often.
    #[error("too many wrong tokens from this address; wait {} s", after.as_secs().max(1))]
    Limited {
        /// How long to wait.
        after: Duration,
    },
    /// The catalog did not answer.
    #[error("the catalog does not answer")]
    Catalog(#[from] sqlx::Error),
}

/// Knows tokens and sessions. Clones share it.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    catalog: Catalog,
    config: AccessConfig,
    attempts: Attempts,
    /// Given whenever a token was revoked.
    revoked: Notify,
    /// When tokens and sessions were used since it was last written down.
    used: Mutex<Used>,
    refused: [Counted; Refusal::ALL.len()],
}

#[derive(Debug, Default)]
struct Used {
    tokens: HashMap<String, Micros>,
    sessions: HashMap<Sha256, Micros>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

impl Access {
    /// Access by the tokens of this catalog.
    pub fn new(catalog: Catalog, config: AccessConfig) -> Self {
        let attempts = Attempts::new(config.failures_per_minute);
        Self(Arc::new(Inner {
            catalog,
            config,
            attempts,
            revoked: Notify::new(),
            used: Mutex::default(),
            refused: Default::default(),
        }))
    }

    /// The settings.
    pub fn config(&self) -> &AccessConfig {
        &self.0.config
    }

    /// At the first start, and whenever nobody is left who could let anybody in: makes an admin's token and writes it
    /// into `folder`. Whoever can read that file can read everything of the hub anyway.
    pub async fn first_token(&self, folder: &Path) -> anyhow::Result<()> {
        let admins = tokens::admins_without(self.0.catalog.reader(), "", now()).await.context("look for admins")?;
        if admins > 0 {
            return Ok(());
        }
        let token = ApiToken::random()?;
        let path = folder.join(FIRST_TOKEN);
        // The file first: a token that counts and that nobody was told would be of no use.
        tributary_process::durable::write_private(&path, format!("{}\n", token.reveal()).as_bytes())
            .with_context(|| format!("could not write {}", path.display()))?;
        let wish = Wish { name: "first".into(), role: Role::Admin, expires: None };
        let mut catalog = self.0.catalog.write().await?;
        tokens::add(&mut catalog, &token, &wish, None, now()).await.context("keep the first token")?;
        catalog.commit().await?;
        tracing::info!(id = token.id, file = %path.display(), "made an admin's token; make one for each person and revoke it");
        Ok(())
    }

    /// Whether a text is a token that counts, shown from that address. For every place where somebody shows one.
    pub async fn check(&self, text: &str, from: IpAddr) -> Result<Verified, Denied> {
        let now = now();
        let token: Result<ApiToken, _> = text.parse();
        let name = token.as_ref().map_or("", |token| token.id.as_str());
        self.may(from, name, now)?;
        let problem = match &token {
            Err(malformed) => malformed.to_string(),
            Ok(token) => match tokens::find(self.0.catalog.reader(), token, now).await? {
                Found::Usable(verified) => {
                    self.0.attempts.succeeded(from, &token.id, now);
                    self.used().tokens.insert(token.id.clone(), now);
                    return Ok(verified);
                }
                Found::Ended(problem) => problem,
                Found::Wrong => "the token is not one of this hub".to_owned(),
            },
        };
        self.0.attempts.failed(from, now);
        if let Some(times) = self.count(Refusal::Token) {
            // The id is only known when the form was right: else the text may be anything, such as a password in the
            // wrong place.
            tracing::warn!(%from, id = name, problem, times, "a token was refused");
        }
        Err(Denied::Wrong(problem))
    }

    /// Ends when a token does not count any more, with the reason: for connections that outlive the check of their token.
    pub async fn ended(&self, token: &Verified) -> String {
        loop {
            let revoked = self.0.revoked.notified();
            let now = now();
            if token.expires.is_some_and(|expires| expires <= now) {
                return format!("the token {} has expired", token.id);
            }
            match tokens::counts(self.0.catalog.reader(), &token.id).await {
                Ok(false) => return format!("the token {} was revoked", token.id),
                Ok(true) => {}
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a token could not be looked up")
                }
            }
            let left = token.expires.map_or(i64::MAX, |expires| expires.0.saturating_sub(now.0).max(0));
            // A signal that came between asking for it and now would be missed; the next look is never far.
            let next = WRITE_EVERY.min(Duration::from_micros(left.unsigned_abs()));
            tokio::select! { () = revoked => {}, () = tokio::time::sleep(next) => {} }
        }
    }

    /// A token was revoked: whoever still uses it looks again.
    pub fn revoked(&self) {
        self.0.revoked.notify_waiters();
    }

    /// The session of a cookie that was shown from that address, if it counts. Using it keeps it alive.
    pub async fn session(&self, secret: &Secret, from: IpAddr) -> Result<Session, Denied> {
        let (now, name) = (now(), secret.digest().to_string());
        self.may(from, &name, now)?;
        let found = sessions::find(self.0.catalog.reader(), secret, now).await?;
        let alive = found.filter(|session| {
            let mut used = self.used();
            let last = used.sessions.get(&session.digest).copied().unwrap_or(session.used).max(session.used);
            let alive = now.0.saturating_sub(last.0) < self.idle();
            if alive {
                used.sessions.insert(session.digest, now);
                used.tokens.insert(session.token.id.clone(), now);
            }
            alive
        });
        let Some(session) = alive else {
            self.0.attempts.failed(from, now);
            self.count(Refusal::Session);
            return Err(Denied::Wrong("the session has ended; sign in again".to_owned()));
        };
        self.0.attempts.succeeded(from, &name, now);
        Ok(session)
    }

    /// A session has begun at that address: others' failures there do not hold it up.
    pub fn begun(&self, secret: &Secret, from: IpAddr) {
        self.0.attempts.succeeded(from, &secret.digest().to_string(), now());
    }

    fn may(&self, from: IpAddr, name: &str, now: Micros) -> Result<(), Denied> {
        self.0.attempts.may(from, name, now).map_err(|after| {
            if let Some(times) = self.count(Refusal::Limited) {
                tracing::warn!(%from, times, "somebody who was wrong too often has to wait");
            }
            Denied::Limited { after }
        })
    }

    /// Counts a call that was not let through; how many to mention in the log, if now is the time for it.
    pub fn count(&self, refusal: Refusal) -> Option<u64> {
        self.0.refused[refusal as usize].count(now())
    }

    /// How often that happened.
    pub fn of(&self, refusal: Refusal) -> u64 {
        self.0.refused[refusal as usize].times()
    }

    fn idle(&self) -> i64 {
        i64::try_from(self.0.config.session_idle.0.as_micros()).unwrap_or(i64::MAX)
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.0.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down when tokens and sessions were used, and clears ended sessions away.
    pub async fn write_used(&self) -> Result<(), sqlx::Error> {
        let Used { tokens, sessions } = std::mem::take(&mut *self.used());
        let now = now();
        let mut catalog = self.0.catalog.write().await?;
        for (id, at) in tokens {
            let query = "update api_tokens set last_used = $2 where id = $1 and (last_used is null or last_used < $2)";
            sqlx::query(query).bind(id).bind(at.0).execute(&mut *catalog).await?;
        }
        for (digest, at) in sessions {
            let query = "update sessions set used = $2 where digest = $1 and used < $2";
            sqlx::query(query).bind(&digest.0[..]).bind(at.0).execute(&mut *catalog).await?;
        }
        sessions::clear(&mut catalog, Micros(now.0.saturating_sub(self.idle())), now).await?;
        catalog.commit().await
    }

    /// Writes it down every minute and at the end.
    pub async fn run(self, stop: Shutdown) -> anyhow::Result<()> {
        loop {
            let stopping = stop.unless_given(tokio::time::sleep(WRITE_EVERY)).await.is_none();
            if let Err(error) = self.write_used().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "when tokens were used was not written down");
            }
            if stopping {
                return Ok(());
            }
        }
    }
}
