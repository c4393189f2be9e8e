//! Certificates that were issued after the backup that this hub was restored from.
//!
//! The authority's signature proves that this hub has issued them; what is lost is whether they were taken back. A device
//! that still has a certificate which counts could speak with that one anyway, so its renewed one is taken in. Any other
//! waits for an operator.

use std::sync::Arc;

use serde_json::{Value, json};
use tributary_identity::{BACKDATED, Certificate};
use tributary_wire::{DeviceId, Micros};

use super::certificates::{self, How};
use super::known::Entry;
use super::{Identity, to_the_end};
use crate::audit::{self, Change};
use crate::backup::{Restore, reports};
use crate::catalog::{alerts, devices};

/// Clocks are set, and signing takes a moment.
const SLACK: i64 = 600 * Micros::SECOND;

/// The alert of a certificate that waits for an operator.
const WAITS: &str = "certificate-after-backup";

impl Identity {
    /// TLS has accepted a certificate that is not in the catalog. Whether it is one that a restore has lost and that
    /// counts again now; what waits for an operator is written down once.
    pub(crate) async fn take_in_again(
        self: &Arc<Self>,
        certificate: &Certificate,
        now: Micros,
    ) -> anyhow::Result<bool> {
        let Ok(device) = DeviceId::new(certificate.common_name()) else { return Ok(false) };
        let restore = Restore::newest(&mut *self.catalog().reader().acquire().await?).await?;
        let Some(restore) = restore else { return Ok(false) };
        let issued = certificate.not_before().0.saturating_add(BACKDATED);
        if issued < restore.backup_time - SLACK {
            return Ok(false);
        }
        let (identity, certificate) = (self.clone(), certificate.clone());
        to_the_end(async move {
            let _order = identity.change().await;
            let mut write = identity.catalog().write().await?;
            let serial = certificate.serial().as_str();
            let query = "select accepted from restore_certificates where serial = $1";
            let seen: Option<Option<i64>> = sqlx::query_scalar(query).bind(serial).fetch_optional(&mut *write).await?;
            let rows = certificates::of(&mut write, &device).await?;
            let counts = rows.iter().any(|row| row.revoked.is_none());
            let late = issued > restore.restored + SLACK;
            let accepted = matches!(seen, Some(Some(_))) || (counts && !late && seen.is_none());
            if !accepted {
                if seen.is_none() {
                    waits(&mut write, &device, serial, late, now).await?;
                    write.commit().await?;
                }
                return Ok(false);
            }
            devices::seen(&mut write, &device, now).await?;
            certificates::insert(&mut write, &device, &certificate, How::Renewed, Micros(issued)).await?;
            let query = "insert into restore_certificates (serial, device, found, accepted) values ($1, $2, $3, $3)
                         on conflict (serial) do nothing";
            sqlx::query(query).bind(serial).bind(device.as_str()).bind(now.0).execute(&mut *write).await?;
            let to = json!({"serial": serial, "issued": issued});
            let change =
                Change { action: "device.take-in-certificate", subject: device.as_str(), from: Value::Null, to };
            audit::record_own(&mut write, change, now).await?;
            write.commit().await?;
            identity.known.add(certificate.serial().clone(), Entry::new(device.clone(), &certificate));
            tracing::info!(device_id = %device, serial, "a certificate from after the backup was taken in again");
            Ok(true)
        })
        .await
    }

    /// An operator's word for the certificates that a device has shown; whether it has shown any.
    pub async fn accept_again(&self, device: &DeviceId, reason: &str, now: Micros) -> Result<bool, sqlx::Error> {
        let mut write = self.catalog().write().await?;
        let query = "update restore_certificates set accepted = $2 where device = $1 and accepted is null";
        let done = sqlx::query(query).bind(device.as_str()).bind(now.0).execute(&mut *write).await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        let to = json!({"reason": reason});
        let change = Change { action: "restore.accept-device", subject: device.as_str(), from: Value::Null, to };
        audit::record(&mut write, change, now).await?;
        alerts::resolve(&mut write, WAITS, device.as_str(), now).await?;
        write.commit().await?;
        Ok(true)
    }
}

async fn waits(
    write: &mut sqlx::SqliteConnection,
    device: &DeviceId,
    serial: &str,
    late: bool,
    now: Micros,
) -> Result<(), sqlx::Error> {
    let query = "insert into restore_certificates (serial, device, found) values ($1, $2, $3)";
    sqlx::query(query).bind(serial).bind(device.as_str()).bind(now.0).execute(&mut *write).await?;
    let (kind, problem) = match late {
        true => (reports::ANOTHER, "it was issued after this hub was restored, but not by it: another hub is at work"),
        false => (WAITS, "it was issued after the backup; whether it was revoked since is not known here"),
    };
    let detail = json!({
        "problem": format!("certificate {serial} of {device} is not in the catalog: {problem}"),
        "next": format!("if the device is yours: cloud-hub restore accept {device} --reason WORDS"),
    });
    alerts::raise(write, alerts::Raise { kind, subject: device.as_str(), severity: "critical", detail }, now).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use tributary_identity::{EnrolRequest, Key as _, KeyFile};

    use super::*;
    use crate::catalog::{Catalog, now};
    use crate::identity::{IdentityConfig, Wanted};

    async fn open(folder: &Path) -> (Catalog, Arc<Identity>) {
        let catalog = Catalog::open(&folder.join("catalog.db")).await.unwrap();
        let opened = Identity::open(IdentityConfig::default(), folder, catalog.clone(), now()).await;
        (catalog, opened.unwrap())
    }

    /// As after a restore of a backup that knows only some of the certificates.
    async fn set_back(folder: &Path, forget: &[&Certificate], backup: Micros) -> (Catalog, Arc<Identity>) {
        let (catalog, _) = open(folder).await;
        let mut write = catalog.write().await.unwrap();
        for certificate in forget {
            let query = sqlx::query("delete from certificates where serial = $1").bind(certificate.serial().as_str());
            query.execute(&mut *write).await.unwrap();
        }
        sqlx::query(
            "insert into restores (epoch, restored, backup_time, audit_number, audit_hash, last_rollout, state)
             values (1, $1, $2, 0, '', 0, 'done')",
        )
        .bind(now().0)
        .bind(backup.0)
        .execute(&mut *write)
        .await
        .unwrap();
        write.commit().await.unwrap();
        catalog.close().await;
        open(folder).await
    }

    async fn enrolled(identity: &Arc<Identity>, name: &str) -> Certificate {
        let expires = Micros(now().0 + Micros::DAY);
        let wanted = Wanted { group: None, labels: BTreeMap::new(), uses: 1, expires };
        let token = identity.create_token(wanted, now()).await.unwrap().1.to_string();
        let (key, device) = (KeyFile::generate().unwrap(), DeviceId::new(name).unwrap());
        let request = EnrolRequest { token, device: device.clone(), request: key.request(&device).unwrap() };
        identity.enrol(&request, None, now()).await.unwrap().certificate
    }

    async fn renewed(identity: &Arc<Identity>) -> (DeviceId, Certificate) {
        let first = enrolled(identity, "edge-1").await;
        let device = DeviceId::new("edge-1").unwrap();
        let request = KeyFile::generate().unwrap().request(&device).unwrap();
        let renewed = identity.renew(&first, &request, now()).await.unwrap().certificate;
        (device, renewed)
    }

    #[tokio::test]
    async fn a_renewed_certificate_counts_again_and_any_other_waits_for_an_operator() {
        let folder = tempfile::tempdir().unwrap();
        let (catalog, identity) = open(folder.path()).await;
        let (device, renewed) = renewed(&identity).await;
        let newcomer = enrolled(&identity, "edge-2").await;
        assert!(!identity.take_in_again(&newcomer, now()).await.unwrap(), "this hub was never restored");
        catalog.close().await;

        let (catalog, identity) = set_back(folder.path(), &[&renewed, &newcomer], now()).await;
        assert!(identity.device(&renewed, now()).is_err() && identity.device(&newcomer, now()).is_err());
        assert!(identity.take_in_again(&renewed, now()).await.unwrap());
        assert_eq!(identity.device(&renewed, now()), Ok(device.clone()));
        let second = DeviceId::new("edge-2").unwrap();
        assert!(!identity.accept_again(&second, "mine", now()).await.unwrap(), "it has shown nothing yet");
        for _ in 0..2 {
            assert!(!identity.take_in_again(&newcomer, now()).await.unwrap());
        }
        let alerts: i64 = sqlx::query_scalar("select sum(times) from alerts where kind = $1")
            .bind(WAITS)
            .fetch_one(catalog.reader())
            .await
            .unwrap();
        assert_eq!(alerts, 1, "told once");
        assert!(identity.accept_again(&second, "mine", now()).await.unwrap());
        assert!(identity.take_in_again(&newcomer, now()).await.unwrap());
        assert_eq!(identity.device(&newcomer, now()), Ok(second));
        catalog.close().await;
        let (_, identity) = open(folder.path()).await;
        assert!(identity.device(&renewed, now()).is_ok() && identity.device(&newcomer, now()).is_ok());
    }

    #[tokio::test]
    async fn one_that_is_older_than_the_backup_or_of_a_revoked_device_does_not_count_again() {
        let folder = tempfile::tempdir().unwrap();
        let (catalog, identity) = open(folder.path()).await;
        let (device, renewed) = renewed(&identity).await;
        identity.revoke(&device, "stolen", now()).await.unwrap();
        catalog.close().await;
        let (catalog, identity) = set_back(folder.path(), &[&renewed], Micros(now().0 + Micros::DAY)).await;
        assert!(!identity.take_in_again(&renewed, now()).await.unwrap(), "the backup would know it");
        let mut write = catalog.write().await.unwrap();
        sqlx::query("update restores set backup_time = 0").execute(&mut *write).await.unwrap();
        write.commit().await.unwrap();
        assert!(!identity.take_in_again(&renewed, now()).await.unwrap(), "its device was shut out");
        assert!(identity.device(&renewed, now()).is_err());
    }
}
