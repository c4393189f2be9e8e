//! Who is who: keys, certificates, enrolment tokens and the TLS settings that both ends of a link must agree on.
//!
//! A device makes a [`Key`] that never leaves it and sends a signing request; the hub's [`Authority`] answers with a
//! [`Certificate`] whose common name is the device's id. An [`EnrolmentToken`] names the hub by the fingerprint of its
//! authority, so that the first connection trusts nobody blindly ([`tls::pinned_client`]); every later one is TLS 1.3
//! with certificates on both sides ([`tls::device_client`], [`tls::hub_server`]).
//!
//! This crate opens no connection. It touches files only for keys ([`KeyFile`]).

mod authority;
mod certificate;
mod clock;
mod key;
mod messages;
pub mod tls;
mod token;

pub use authority::{Authority, BACKDATED, IssueError, OpenError};
pub use certificate::{Certificate, CertificateError, Serial};
pub use clock::{BUILT, DeviceClock};
pub use key::{Key, KeyError, KeyFile};
pub use messages::{EnrolRequest, Enrolled, Ports, RenewRequest};
pub use token::{EnrolmentToken, TokenError};
