//! Every certificate after the first: asked for with the one before, long before its end.

use std::sync::{Arc, Mutex, PoisonError};

use edge_agent_core::Now;
use edge_agent_core::renewal::{Schedule, Urgency};
use hyper::Method;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tributary_identity::tls::{HubProblem, hub_problem};
use tributary_identity::{Key, KeyError, KeyFile, RenewRequest, Serial};
use tributary_process::http::ClientError;
use tributary_process::shutdown::Shutdown;
use tributary_wire::Micros;

use super::answer::{self, AnswerError, MAX_ANSWER_BYTES};
use super::files::FilesError;
use super::{Current, Identity, IdentityError, PATIENCE};
use crate::words::in_words;

/// Orders to rotate that wait; more than one at a time is a mistake.
const QUEUE: usize = 4;

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The hub did not answer, or said no.
    #[error("hub")]
    Hub(#[from] ClientError),
    /// The hub is not taken for ours, or does not take us for its device.
    #[error("{0}")]
    Stranger(&'static str),
    /// The answer is of no use.
    #[error("the hub's answer is refused")]
    Answer(#[from] AnswerError),
    /// This device's disk.
    #[error("the new certificate cannot be kept")]
    Files(#[from] FilesError),
    /// The new identity does not work.
    #[error("the new certificate cannot be used")]
    Identity(#[from] IdentityError),
    /// This device's key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The agent stops.
    #[error("the agent stops")]
    Stopping,
    /// The runtime is going down.
    #[error("runtime")]
    Runtime(#[from] std::io::Error),
}

/// Asks for a new key and certificate.
#[derive(Debug, Clone)]
pub struct Renewal(mpsc::Sender<oneshot::Sender<Result<Serial, RenewError>>>);

impl Renewal {
    /// A handle, and what [`run`] answers.
    pub fn channel() -> (Self, Requests) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), Requests(receiver))
    }

    /// Makes a new key and has it certified, now; the number of its certificate. When this returns, the new one is on
    /// disk and shown to the hub; the connection that stands is made anew with it.
    pub async fn rotate(&self) -> Result<Serial, RenewError> {
        let (answer, answered) = oneshot::channel();
        self.0.send(answer).await.map_err(|_| RenewError::Stopping)?;
        answered.await.map_err(|_| RenewError::Stopping)?
    }
}

/// The other end of [`Renewal`].
#[derive(Debug)]
pub struct Requests(mpsc::Receiver<oneshot::Sender<Result<Serial, RenewError>>>);

/// How renewal goes.
#[derive(Debug, Default)]
pub struct RenewalStatus(Mutex<RenewalView>);

/// [`RenewalStatus`] at one moment.
#[derive(Debug, Clone, Default)]
pub struct RenewalView {
    /// When the next attempt is meant.
    pub next_attempt: Option<Micros>,
    /// Why the last attempt failed, if it did.
    pub error: Option<String>,
    /// What a person must know.
    pub problem: Option<String>,
}

impl RenewalStatus {
    /// As it is now.
    pub fn view(&self) -> RenewalView {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn show(&self, view: RenewalView) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }
}

/// Renews the certificate again and again, and at once when asked, until the signal is given.
pub async fn run(identity: Arc<Identity>, mut requests: Requests, shutdown: Shutdown) {
    let started = Instant::now();
    let now = || Now { wall: identity.time.now(), monotonic: started.elapsed() };
    let mut schedule = Schedule::new(identity.current().term, seed(&identity.current()));
    let mut error = None;
    loop {
        identity.status.show(view(&schedule, &identity.current(), now(), error.clone()));
        let request = tokio::select! {
            () = shutdown.given() => return,
            Some(request) = requests.0.recv() => Some(request),
            () = tokio::time::sleep(schedule.wait(now())) => None,
        };
        // Handshakes may have raised it.
        identity.time.keep();
        if request.is_none() && !schedule.due(now()) {
            continue;
        }
        let Some(renewed) = shutdown.unless_given(identity.renew(request.is_some())).await else { return };
        match &renewed {
            Ok(serial) => {
                tracing::info!(%serial, rotated = request.is_some(), "new certificate");
                let current = identity.current();
                (schedule, error) = (Schedule::renewed(current.term, seed(&current), now()), None);
            }
            Err(failed) => {
                let words = in_words(failed);
                tracing::warn!(error = %words, "the certificate was not renewed");
                // An order that failed says nothing of the certificate that we have.
                if request.is_none() {
                    schedule.failed(now());
                    error = Some(words);
                }
            }
        }
        if let Some(request) = request {
            // Whoever asked may have gone.
            let _ = request.send(renewed);
        }
    }
}

/// The certificate's own bits choose the moment, so that a restart does not choose anew.
fn seed(current: &Current) -> u64 {
    let hash = current.certificate.fingerprint().0;
    u64::from_le_bytes(std::array::from_fn(|at| hash[at]))
}

fn view(schedule: &Schedule, current: &Current, now: Now, error: Option<String>) -> RenewalView {
    let ends = crate::sources::rfc3339(&current.certificate.not_after());
    let why = error.as_deref().unwrap_or("renewal has not been tried yet");
    let problem = match schedule.urgency(now) {
        Urgency::None => None,
        Urgency::Ending => Some(format!("the certificate ends at {ends} and cannot be renewed: {why}")),
        Urgency::Expired => Some(format!("the certificate has ended at {ends}: {why}")),
    };
    RenewalView { next_attempt: Some(schedule.next_attempt(now)), error, problem }
}

impl Identity {
    /// One attempt. With `rotate` for a new key; a key that waits for its certificate is used in any case.
    pub(super) async fn renew(&self, rotate: bool) -> Result<Serial, RenewError> {
        let current = self.current();
        let key = self.key(&current, rotate).await?;
        let request = RenewRequest { request: key.request(&current.device)? };
        let client = self.web().with_timeout(PATIENCE).with_body_limit(MAX_ANSWER_BYTES);
        let body = serde_json::to_vec(&request).expect("plain data always serialises");
        let path = "/api/v1/certificates/renew";
        let answer = client.send(Method::POST, path, "application/json", body.into()).await;
        let answer = answer.and_then(|answer| answer.accepted()).map_err(explain)?;
        let answer = answer::read(&answer.body)?;
        let called = &current.stored.hub.called;
        let mut stored = answer::check(&answer, &current.device, key, called, self.time.now().max(answer.now))?;
        // Whoever has broken into the hub must not be able to put a root of trust into devices; a rightful new one comes
        // by the chain, signed by the old one.
        stored.root.clone_from(&current.stored.root);
        let (folder, number) = (self.folder.clone(), current.number);
        let stored = tokio::task::spawn_blocking(move || folder.keep(Some(number), &stored).map(|new| (new, stored)));
        let (number, stored) = stored.await.map_err(std::io::Error::other)??;
        self.time.raise(answer.now);
        let renewed = Current::new(number, stored, &self.overrides, &self.time)?;
        let serial = renewed.serial().clone();
        self.replace(renewed);
        Ok(serial)
    }

    async fn key(&self, current: &Current, rotate: bool) -> Result<Arc<KeyFile>, RenewError> {
        let (folder, own) = (self.folder.clone(), current.stored.key.clone());
        let found = tokio::task::spawn_blocking(move || match rotate {
            true => folder.new_key(Some(&own)).map(Arc::new),
            // What was begun and cut short is finished.
            false => Ok(folder.pending(Some(&own))?.map_or(own, Arc::new)),
        });
        Ok(found.await.map_err(std::io::Error::other)??)
    }
}

fn explain(error: ClientError) -> RenewError {
    match hub_problem(&error) {
        Some(HubProblem::Other | HubProblem::Untrusted) => {
            RenewError::Stranger("none of the authorities of this device vouches for the hub: enrol it again")
        }
        Some(HubProblem::Refuses) => RenewError::Stranger("the hub does not take this device's certificate any more"),
        _ => error.into(),
    }
}
