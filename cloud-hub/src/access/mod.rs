//! Who calls, and what they may do.
//!
//! People and services show an API token ([`tokens`]) or a session that began with one ([`sessions`]); devices show
//! their certificate. [`guard`] lets a request through, or not.

pub mod attempts;
mod check;
mod config;
pub mod guard;
pub mod own;
pub mod secret;
pub mod sessions;
pub mod tokens;

pub use check::{Access, Denied, FIRST_TOKEN, Refusal};
pub use config::AccessConfig;
pub use tokens::Verified;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tributary_identity::Certificate;
use tributary_wire::DeviceId;

/// What a person or service may do; each role includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Runs the loop: labels, datasets, training, rollouts, commands to devices; revokes a device's certificates.
    Operator,
    /// Decides who may do what: API tokens, and tokens to enrol with.
    Admin,
}

impl Role {
    /// All of them, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// As in the API and in the catalog.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The role of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Who calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Who {
    /// Somebody who did not say.
    #[default]
    Nobody,
    /// A device, by its certificate, which was looked up and may be used.
    Device(DeviceId),
    /// A person or service, by a token or by a session that began with one.
    Token {
        /// Id of the token.
        id: String,
        /// What it may do.
        role: Role,
    },
    /// The hub itself: what it does on a schedule or because of what devices said.
    Hub,
}

/// Who calls and from where; for handlers and for the audit log.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// Who.
    pub who: Who,
    /// From which address, if over the network.
    pub from: Option<SocketAddr>,
    /// The client certificate of the connection, valid or expired within the grace.
    pub certificate: Option<Arc<Certificate>>,
}

tokio::task_local! {
    static CALLER: Caller;
}

impl Caller {
    /// Runs `work` in this caller's name. It travels with the task, so that the deepest function that changes something
    /// can write down for whom.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        CALLER.scope(self, work).await
    }

    /// In whose name the present task works: the hub's own unless it answers somebody.
    pub fn current() -> Self {
        CALLER.try_with(Clone::clone).unwrap_or(Self { who: Who::Hub, from: None, certificate: None })
    }
}

/// Handlers take it; the layer that checks who calls has put it there.
impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Caller {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}
