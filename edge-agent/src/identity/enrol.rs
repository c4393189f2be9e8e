//! The first certificate: asked for with a token, from the hub that the token names and from no other.

use std::path::Path;

use hyper::{Method, StatusCode};
use tributary_identity::tls::{ALPN_HTTP, HubProblem, TlsError, hub_problem, pinned_client};
use tributary_identity::{EnrolRequest, EnrolmentToken, Key, KeyError, Serial};
use tributary_process::http::{Client, ClientError, Endpoint};
use tributary_wire::{DeviceId, Micros};

use super::answer::{self, AnswerError, MAX_ANSWER_BYTES};
use super::{FilesError, Folder, PATIENCE, Time};

/// What it takes.
#[derive(Debug)]
pub struct Enrolment {
    /// The hub's web API.
    pub hub: Endpoint,
    /// The operator's word.
    pub token: EnrolmentToken,
    /// The id to have.
    pub device: DeviceId,
    /// Whether a device that has an identity gets another one.
    pub again: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// This device.
    pub device: DeviceId,
    /// Its certificate's number.
    pub serial: Serial,
    /// Its end.
    pub not_after: Micros,
    /// From when on it is renewed.
    pub renew_after: Micros,
}

/// Why a device is not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// It is already.
    #[error(
        "this device is enrolled already: it is {device}, its certificate {serial} ends at {ends}; \
         --again gives it another identity"
    )]
    Already {
        /// As whom.
        device: String,
        /// Its certificate.
        serial: Serial,
        /// Its end.
        ends: String,
    },
    /// Without TLS there is nothing to check the hub by.
    #[error("{found} is not an https address; enrolment works over HTTPS alone")]
    Plain {
        /// As given.
        found: Endpoint,
    },
    /// Nobody answers.
    #[error(transparent)]
    Unreachable(ClientError),
    /// Another hub, or somebody who wants to be taken for it.
    #[error("{hub} is not the hub that made this token: its authority has another fingerprint; nothing was sent to it")]
    OtherHub {
        /// Who answered.
        hub: Endpoint,
    },
    /// The certificate does not name the address.
    #[error(
        "the certificate of the hub at {hub} is not for this name or address; call it by one of those in its setting \
         identity.names, or add this one there"
    )]
    Name {
        /// As called.
        hub: Endpoint,
    },
    /// The clocks.
    #[error("the certificate of the hub at {hub} is {problem} by this device's clock, which says {now}")]
    Clock {
        /// Which hub.
        hub: Endpoint,
        /// Over, or not valid yet.
        problem: &'static str,
        /// The device's time.
        now: String,
    },
    /// The hub said no.
    #[error("the hub refuses: {detail}")]
    Refused {
        /// With which status.
        status: StatusCode,
        /// In its own words.
        detail: String,
    },
    /// The hub failed.
    #[error("hub")]
    Hub(#[source] ClientError),
    /// The answer is of no use.
    #[error("the hub's answer is refused")]
    Answer(#[from] AnswerError),
    /// This device's disk.
    #[error("the identity cannot be kept")]
    Files(#[from] FilesError),
    /// This device's key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The TLS library.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Enrols the device whose identity lies in `folder`. The key is made here and stays here; after a lost answer the same
/// key is shown again, so that the hub knows that it is the same device.
pub async fn enrol(folder: &Folder, time: &Time, enrolment: &Enrolment) -> Result<Done, EnrolError> {
    let Enrolment { hub, token, device, again } = enrolment;
    let Endpoint::Tls(authority) = hub else { return Err(EnrolError::Plain { found: hub.clone() }) };
    let (instead_of, current) = known(folder, *again)?;
    let key = std::sync::Arc::new(folder.new_key(current.as_deref())?);
    let request = EnrolRequest { token: token.to_string(), device: device.clone(), request: key.request(device)? };
    let tls = pinned_client(token.hub(), ALPN_HTTP, time.clock())?;
    let client = Client::new(hub.clone()).with_tls(tls.into()).with_timeout(PATIENCE).with_body_limit(MAX_ANSWER_BYTES);
    let body = serde_json::to_vec(&request).expect("plain data always serialises");
    let answer = client.send(Method::POST, "/api/v1/enrolments", "application/json", body.into()).await;
    let answer = answer.and_then(|answer| answer.accepted()).map_err(|error| explain(hub, time, error))?;
    let answer = answer::read(&answer.body)?;
    // The hub has proven who it is, so its time may be believed.
    let called = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
    let stored = answer::check(&answer, device, key, called, time.now().max(answer.now))?;
    let own = stored.chain[0].clone();
    let renew_after = stored.hub.renew_after;
    // A new identity begins with the new hub's time, however far ahead the old one's was.
    folder.keep_floor(answer.now)?;
    folder.keep(instead_of, &stored)?;
    Ok(Done { device: device.clone(), serial: own.serial().clone(), not_after: own.not_after(), renew_after })
}

type Known = (Option<u64>, Option<std::sync::Arc<tributary_identity::KeyFile>>);

/// The identity to replace. With `again` a damaged one is no obstacle.
fn known(folder: &Folder, again: bool) -> Result<Known, EnrolError> {
    match folder.load() {
        Ok(None) => Ok((None, None)),
        Ok(Some((number, stored))) if again => Ok((Some(number), Some(stored.key))),
        Ok(Some((_, stored))) => {
            let own = &stored.chain[0];
            Err(EnrolError::Already {
                device: own.common_name().to_owned(),
                serial: own.serial().clone(),
                ends: crate::sources::rfc3339(&own.not_after()),
            })
        }
        Err(error) if again => {
            tracing::warn!(error = %crate::words::in_words(&error), "the identity that is replaced cannot be read");
            Ok((folder.number()?, None))
        }
        Err(error) => Err(error.into()),
    }
}

fn explain(hub: &Endpoint, time: &Time, error: ClientError) -> EnrolError {
    let hub = hub.clone();
    let clock = |problem| EnrolError::Clock { hub: hub.clone(), problem, now: crate::sources::rfc3339(&time.now()) };
    match (hub_problem(&error), error) {
        (Some(HubProblem::Other | HubProblem::Untrusted), _) => EnrolError::OtherHub { hub },
        (Some(HubProblem::Name), _) => EnrolError::Name { hub },
        (Some(HubProblem::Expired), _) => clock("over"),
        (Some(HubProblem::Future), _) => clock("not valid yet"),
        (_, ClientError::Refused { status, detail, .. }) if status.is_client_error() => {
            EnrolError::Refused { status, detail }
        }
        (_, error @ (ClientError::Unreachable { .. } | ClientError::TimedOut { .. })) => EnrolError::Unreachable(error),
        (_, error) => EnrolError::Hub(error),
    }
}

/// Reads a token from a file, or from standard input when its name is `-`.
pub fn token_from(path: &Path) -> std::io::Result<String> {
    /// A token has some 150 characters.
    const MAX_BYTES: u64 = 4096;
    let mut text = String::new();
    let source: Box<dyn std::io::Read> = match path.as_os_str() == "-" {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(path)?),
    };
    std::io::Read::read_to_string(&mut std::io::Read::take(source, MAX_BYTES), &mut text)?;
    Ok(text.trim().to_owned())
}
