//! Certificates for devices: the first by a token, each later one by the one before.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tributary_identity::{Certificate, EnrolRequest, EnrolmentToken, IssueError};
use tributary_wire::{DeviceId, Micros};

use super::certificates::{self, How};
use super::decide::{Asking, Grant, Refusal, decide};
use super::known::{Entry, Refused, micros};
use super::{Identity, limit, to_the_end, tokens};
use crate::audit::{self, Change};

/// A certificate that a device is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Whose.
    pub device: DeviceId,
    /// The certificate.
    pub certificate: Certificate,
    /// From when on to renew it.
    pub renew_after: Micros,
    /// Whether certificates that the device had were revoked by this: their connections must go.
    pub replaced: bool,
}

/// Why a device gets no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// It may not.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The certificate that it shows does not count.
    #[error(transparent)]
    Certificate(#[from] Refused),
    /// The hub failed.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl From<sqlx::Error> for EnrolError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl EnrolError {
    /// As in metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.name(),
            Self::Certificate(refused) => refused.name(),
            Self::Failed(_) => "failed",
        }
    }
}

impl Identity {
    /// Answers a device that shows a token.
    pub async fn enrol(
        self: &Arc<Self>,
        request: &EnrolRequest,
        from: Option<IpAddr>,
        now: Micros,
    ) -> Result<Issued, EnrolError> {
        let (device, address) = (&request.device, from.map(limit::caller));
        let refused = address.is_some_and(|address| !self.refusals.allows(&address, now));
        let outcome = if refused { Err(Refusal::TooMany.into()) } else { self.try_enrol(request, now).await };
        match &outcome {
            Ok((issued, grant)) => {
                let outcome = grant.name();
                self.tally.enrolment(outcome);
                // Enrolments cost uses of a token; to repeat one costs something too.
                if *grant == Grant::Again {
                    address.map(|address| self.refusals.take(&address, now));
                }
                tracing::info!(device_id = %device, ?from, outcome, serial = %issued.certificate.serial(), "enrolled");
            }
            Err(error) => {
                let outcome = error.name();
                self.tally.enrolment(outcome);
                // Refusals beyond the limit are what a flood consists of: they do not take part in it.
                if !refused {
                    address.map(|address| self.refusals.take(&address, now));
                    tracing::warn!(device_id = %device, ?from, outcome, %error, "enrolment refused");
                } else if let Some(unsaid) = self.tally.may_say(outcome, now) {
                    tracing::warn!(device_id = %device, ?from, outcome, unsaid, "enrolments refused");
                }
            }
        }
        outcome.map(|(issued, _)| issued)
    }

    async fn try_enrol(self: &Arc<Self>, request: &EnrolRequest, now: Micros) -> Result<(Issued, Grant), EnrolError> {
        let token: EnrolmentToken = request.token.parse().map_err(Refusal::Malformed)?;
        let (hub, device) = (self.authority.certificate().fingerprint(), request.device.clone());
        // Whoever has no good token costs one read, and neither a signature nor a turn of the one writer.
        let found = tokens::look(self.catalog.reader(), token.id()).await?;
        let hopeful = Asking { repeats: true, ..Asking::default() };
        decide(&token, hub, found.as_ref().map(|found| &found.kept), &device, &hopeful, now)?;
        let fresh = self.issue(&request.request, &device, now)?;
        let identity = self.clone();
        to_the_end(async move {
            let _order = identity.change().await;
            let mut transaction = identity.catalog.write().await?;
            let found = tokens::find(&mut transaction, token.id()).await?;
            let rows = certificates::of(&mut transaction, &device).await?;
            let mut before = None;
            for row in rows.iter().filter(|row| row.revoked.is_none() && row.token.as_deref() == Some(token.id())) {
                let kept = row.certificate()?;
                if kept.public_key() == fresh.public_key() && kept.not_after() > now {
                    before = Some((kept, Micros(row.issued)));
                }
            }
            let asking = Asking {
                enrolled: !rows.is_empty(),
                permit: certificates::permitted(&mut transaction, &device).await?,
                repeats: before.is_some(),
            };
            let kept = found.as_ref().map(|found| &found.kept);
            let grant = decide(&token, hub, kept, &device, &asking, now)?;
            if let (Grant::Again, Some((certificate, issued))) = (grant, before) {
                return Ok((identity.issued(device, certificate, issued, false), grant));
            }
            if !tokens::take_use(&mut transaction, token.id()).await? {
                let allowed = kept.map_or(0, |kept| kept.uses_allowed);
                return Err(Refusal::UsedUp { id: token.id().to_owned(), allowed }.into());
            }
            let (group, labels) = found.map(|found| (found.group, found.labels)).unwrap_or_default();
            certificates::add_device(&mut transaction, &device, group.as_deref(), &labels, now).await?;
            let reason = "the device was enrolled anew";
            certificates::revoke(&mut transaction, &device, reason, now).await?;
            certificates::forbid(&mut transaction, &device).await?;
            certificates::insert(&mut transaction, &device, &fresh, How::Enrolled(token.id()), now).await?;
            let from = rows.first().map_or(Value::Null, |row| json!({ "serial": row.serial }));
            let to = json!({ "serial": fresh.serial().as_str(), "token": token.id(), "group": group });
            let change = Change { action: "device.enrol", subject: device.as_str(), from, to };
            audit::record(&mut transaction, change, now).await?;
            transaction.commit().await?;
            identity.known.revoke(&device, reason);
            identity.known.add(fresh.serial().clone(), Entry::new(device.clone(), &fresh));
            Ok((identity.issued(device, fresh, now, grant == Grant::Anew), grant))
        })
        .await
    }

    /// Answers a device that shows its certificate, which may have expired within the grace.
    ///
    /// The old certificate stays good until the device has connected with the new one: an answer that is lost locks
    /// nobody out. A request that is repeated with the same key gets the same certificate, and of several that were
    /// asked for and never used only the last counts.
    pub async fn renew(
        self: &Arc<Self>,
        shown: &Certificate,
        request: &str,
        now: Micros,
    ) -> Result<Issued, EnrolError> {
        let outcome = self.try_renew(shown, request, now).await;
        let (device_id, serial) = (shown.common_name(), shown.serial());
        match &outcome {
            Ok(issued) => {
                self.tally.renewal("renewed");
                tracing::info!(device_id, old = %serial, new = %issued.certificate.serial(), "certificate renewed");
            }
            Err(error) => {
                self.tally.renewal(error.name());
                if let Some(unsaid) = self.tally.may_say(error.name(), now) {
                    tracing::warn!(device_id, %serial, %error, unsaid, "renewal refused");
                }
            }
        }
        outcome
    }

    async fn try_renew(
        self: &Arc<Self>,
        shown: &Certificate,
        request: &str,
        now: Micros,
    ) -> Result<Issued, EnrolError> {
        let grace = self.config.grace.0;
        let device = self.known.judge(shown, now, grace)?.device;
        if !self.renewals.take(&device, now) {
            return Err(Refusal::TooMany.into());
        }
        let fresh = self.issue(request, &device, now)?;
        let (identity, shown) = (self.clone(), shown.clone());
        to_the_end(async move {
            let _order = identity.change().await;
            // It may have been revoked since; nobody else changes anything now.
            identity.known.judge(&shown, now, grace)?;
            let mut transaction = identity.catalog.write().await?;
            let rows = certificates::of(&mut transaction, &device).await?;
            let waiting = rows.iter().filter(|row| {
                row.how == "renewed"
                    && row.used.is_none()
                    && row.revoked.is_none()
                    && row.serial != shown.serial().as_str()
            });
            let mut superseded = Vec::new();
            for row in waiting {
                let kept = row.certificate()?;
                let issued = identity.issued(device.clone(), kept, Micros(row.issued), false);
                if issued.certificate.public_key() == fresh.public_key() && now < issued.renew_after {
                    return Ok(issued);
                }
                superseded.push(issued.certificate.serial().clone());
            }
            let reason = format!("superseded by {} before it was used", fresh.serial());
            for serial in &superseded {
                certificates::revoke_one(&mut transaction, serial.as_str(), &reason, now).await?;
            }
            certificates::insert(&mut transaction, &device, &fresh, How::Renewed, now).await?;
            let change = Change {
                action: "certificate.renew",
                subject: device.as_str(),
                from: json!({ "serial": shown.serial().as_str() }),
                to: json!({ "serial": fresh.serial().as_str() }),
            };
            audit::record(&mut transaction, change, now).await?;
            transaction.commit().await?;
            for serial in &superseded {
                identity.known.revoke_one(serial, &reason);
            }
            identity.known.add(fresh.serial().clone(), Entry::new(device.clone(), &fresh));
            Ok(identity.issued(device, fresh, now, false))
        })
        .await
    }

    fn issue(&self, request: &str, device: &DeviceId, now: Micros) -> Result<Certificate, EnrolError> {
        let issued = self.authority.issue_device(request, device, now, self.config.device_lifetime.0);
        issued.map_err(|error| match error {
            IssueError::Request(_) | IssueError::OtherName { .. } | IssueError::KeyType => {
                Refusal::Request(error.to_string()).into()
            }
            other => EnrolError::Failed(other.into()),
        })
    }

    fn issued(&self, device: DeviceId, certificate: Certificate, at: Micros, replaced: bool) -> Issued {
        let life = Duration::from_micros(certificate.not_after().0.saturating_sub(at.0).max(0) as u64);
        let after = self.config.renew_after.map_or(life / 3 * 2, |after| after.0.min(life / 3 * 2));
        let renew_after = Micros(at.0.saturating_add(micros(after)));
        Issued { device, certificate, renew_after, replaced }
    }
}
