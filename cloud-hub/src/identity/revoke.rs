//! What operators decide about a device's certificates.

use std::sync::Arc;

use serde_json::{Value, json};
use tributary_wire::{DeviceId, Micros};

use super::certificates::{self, Row};
use super::{Identity, to_the_end};
use crate::audit::{self, Change};
use crate::catalog::devices;

/// Why nothing was decided.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// The hub does not know it.
    #[error("there is no device {0}")]
    NoDevice(DeviceId),
    /// It never enrolled.
    #[error("device {0} has no certificate; it can enrol with a token as it is")]
    NotEnrolled(DeviceId),
    /// The hub failed.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl From<sqlx::Error> for RevokeError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl Identity {
    /// The certificates of a device, newest first; `None`: there is no such device.
    pub async fn certificates(&self, device: &DeviceId) -> Result<Option<Vec<Row>>, sqlx::Error> {
        if !devices::is_known(self.catalog().reader(), device).await? {
            return Ok(None);
        }
        let mut connection = self.catalog().reader().acquire().await?;
        certificates::of(&mut connection, device).await.map(Some)
    }

    /// Revokes all certificates of a device, at once: when this returns, none of them counts any more. Whoever calls
    /// closes the device's connection. How many there were; asked again, none are left and nothing changes.
    pub async fn revoke(self: &Arc<Self>, device: &DeviceId, reason: &str, now: Micros) -> Result<u64, RevokeError> {
        let (identity, device, reason) = (self.clone(), device.clone(), reason.to_owned());
        to_the_end(async move {
            let _order = identity.change().await;
            let mut transaction = identity.catalog().write().await?;
            let rows = certificates::of(&mut transaction, &device).await?;
            identity.enrolled(&device, &rows).await?;
            let revoked = certificates::revoke(&mut transaction, &device, &reason, now).await?;
            certificates::forbid(&mut transaction, &device).await?;
            if revoked > 0 {
                let serials: Vec<&str> =
                    rows.iter().filter(|row| row.revoked.is_none()).map(|row| row.serial.as_str()).collect();
                let to = json!({ "revoked": serials, "reason": reason });
                let change = Change { action: "device.revoke", subject: device.as_str(), from: Value::Null, to };
                audit::record(&mut transaction, change, now).await?;
            }
            transaction.commit().await?;
            identity.known.revoke(&device, &reason);
            tracing::warn!(device_id = %device, revoked, reason, "certificates revoked");
            Ok(revoked)
        })
        .await
    }

    /// Lets a device that has, or had, certificates enrol once more, until then. Its certificates count until it does.
    pub async fn allow_enrolment(
        self: &Arc<Self>,
        device: &DeviceId,
        until: Micros,
        now: Micros,
    ) -> Result<(), RevokeError> {
        let (identity, device) = (self.clone(), device.clone());
        to_the_end(async move {
            let _order = identity.change().await;
            let mut transaction = identity.catalog().write().await?;
            let rows = certificates::of(&mut transaction, &device).await?;
            identity.enrolled(&device, &rows).await?;
            let before = certificates::permitted(&mut transaction, &device).await?;
            certificates::permit(&mut transaction, &device, until, now).await?;
            let told = |until: Option<Micros>| until.map_or(Value::Null, |until| json!({ "until": until.0 }));
            let (from, to) = (told(before), told(Some(until)));
            let change = Change { action: "device.allow-enrolment", subject: device.as_str(), from, to };
            audit::record(&mut transaction, change, now).await?;
            transaction.commit().await?;
            tracing::warn!(device_id = %device, %until, "the device may enrol once more");
            Ok(())
        })
        .await
    }

    async fn enrolled(&self, device: &DeviceId, rows: &[Row]) -> Result<(), RevokeError> {
        if !rows.is_empty() {
            return Ok(());
        }
        match devices::is_known(self.catalog().reader(), device).await? {
            true => Err(RevokeError::NotEnrolled(device.clone())),
            false => Err(RevokeError::NoDevice(device.clone())),
        }
    }
}
