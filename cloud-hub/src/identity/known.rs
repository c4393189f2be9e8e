//! The certificates that were issued, in memory: every connection and every request is checked against them, and a
//! fleet that comes back at once must not wait for the disk.
//!
//! The catalog is the truth and is read at start. Whoever changes it changes this as well, in the same order: all
//! changes pass one lock (`super::Identity::change`).

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tributary_identity::{Certificate, Serial};
use tributary_wire::{DeviceId, Micros, Sha256};

/// Why a certificate does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The authority signed it, but it is not in the catalog.
    #[error("certificate {serial} is not one that this hub has issued")]
    Unknown {
        /// Which.
        serial: Serial,
    },
    /// An operator took it back, or a newer one has taken its place.
    #[error("certificate {serial} of {device} is revoked: {reason}")]
    Revoked {
        /// Which.
        serial: Serial,
        /// Whose.
        device: DeviceId,
        /// Why.
        reason: String,
    },
    /// Its time is over.
    #[error("certificate {serial} of {device} expired at {at}")]
    Expired {
        /// Which.
        serial: Serial,
        /// Whose.
        device: DeviceId,
        /// When.
        at: Micros,
    },
}

impl Refused {
    /// As in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "unknown",
            Self::Revoked { .. } => "revoked",
            Self::Expired { .. } => "expired",
        }
    }
}

/// A certificate as far as it has to be known at every connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub device: DeviceId,
    pub fingerprint: Sha256,
    pub not_after: Micros,
    /// Whether its device has connected with it.
    pub used: bool,
    /// Why it was revoked.
    pub revoked: Option<String>,
}

impl Entry {
    /// One that was issued just now.
    pub fn new(device: DeviceId, certificate: &Certificate) -> Self {
        let (fingerprint, not_after) = (certificate.fingerprint(), certificate.not_after());
        Self { device, fingerprint, not_after, used: false, revoked: None }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Known(RwLock<Inner>);

#[derive(Debug, Default)]
struct Inner {
    certificates: HashMap<Serial, Entry>,
    /// Which certificates a device has, in the order in which they were issued.
    devices: HashMap<DeviceId, Vec<Serial>>,
    /// With which one it connected last.
    live: HashMap<DeviceId, Serial>,
}

/// A certificate that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counts {
    pub device: DeviceId,
    pub used: bool,
}

impl Known {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that was issued.
    pub fn add(&self, serial: Serial, entry: Entry) {
        let mut inner = self.write();
        inner.devices.entry(entry.device.clone()).or_default().push(serial.clone());
        inner.certificates.insert(serial, entry);
    }

    /// Revokes those of a device that are not revoked yet.
    pub fn revoke(&self, device: &DeviceId, reason: &str) {
        let mut inner = self.write();
        let Inner { certificates, devices, .. } = &mut *inner;
        for serial in devices.get(device).into_iter().flatten() {
            if let Some(entry) = certificates.get_mut(serial) {
                entry.revoked.get_or_insert_with(|| reason.to_owned());
            }
        }
    }

    /// Revokes one.
    pub fn revoke_one(&self, serial: &Serial, reason: &str) {
        if let Some(entry) = self.write().certificates.get_mut(serial) {
            entry.revoked.get_or_insert_with(|| reason.to_owned());
        }
    }

    /// Whether a certificate, whose signature TLS has checked, counts; `grace` for how long after its end.
    pub fn judge(&self, certificate: &Certificate, now: Micros, grace: Duration) -> Result<Counts, Refused> {
        let inner = self.read();
        let serial = certificate.serial();
        let entry = inner.certificates.get(serial).filter(|entry| entry.fingerprint == certificate.fingerprint());
        let entry = entry.ok_or_else(|| Refused::Unknown { serial: serial.clone() })?;
        judge(serial, entry, now, grace)?;
        Ok(Counts { device: entry.device.clone(), used: entry.used })
    }

    /// A device is connecting with one that counts.
    pub fn connected(&self, device: &DeviceId, serial: &Serial) {
        self.write().live.insert(device.clone(), serial.clone());
    }

    /// A device connects for the first time with this certificate: the older ones are superseded.
    pub fn first_use(&self, device: &DeviceId, serial: &Serial, reason: &str) {
        let mut inner = self.write();
        let Inner { certificates, devices, .. } = &mut *inner;
        let older = devices.get(device).into_iter().flatten().take_while(|older| *older != serial);
        for older in older {
            if let Some(entry) = certificates.get_mut(older) {
                entry.revoked.get_or_insert_with(|| reason.to_owned());
            }
        }
        if let Some(entry) = certificates.get_mut(serial) {
            entry.used = true;
        }
    }

    /// Whether the certificate that a device connected with last does not count any more.
    pub fn outlived(&self, device: &DeviceId, now: Micros) -> Option<Refused> {
        let inner = self.read();
        let serial = inner.live.get(device)?;
        match inner.certificates.get(serial) {
            Some(entry) => judge(serial, entry, now, Duration::ZERO).err(),
            None => Some(Refused::Unknown { serial: serial.clone() }),
        }
    }

    /// Forgets those that cannot even be renewed any more.
    pub fn forget(&self, now: Micros, grace: Duration) {
        let mut inner = self.write();
        let Inner { certificates, devices, live } = &mut *inner;
        certificates.retain(|_, entry| now.0 <= entry.not_after.0.saturating_add(micros(grace)));
        devices.retain(|_, serials| {
            serials.retain(|serial| certificates.contains_key(serial));
            !serials.is_empty()
        });
        live.retain(|device, _| devices.contains_key(device));
    }
}

fn judge(serial: &Serial, entry: &Entry, now: Micros, grace: Duration) -> Result<(), Refused> {
    let (serial, device) = (serial.clone(), entry.device.clone());
    if let Some(reason) = &entry.revoked {
        return Err(Refused::Revoked { serial, device, reason: reason.clone() });
    }
    if now.0 > entry.not_after.0.saturating_add(micros(grace)) {
        return Err(Refused::Expired { serial, device, at: entry.not_after });
    }
    Ok(())
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use tributary_identity::{Authority, Key as _, KeyFile};

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn certificate(authority: &Authority, device: &DeviceId, now: Micros) -> Certificate {
        let request = KeyFile::generate().unwrap().request(device).unwrap();
        authority.issue_device(&request, device, now, 10 * DAY).unwrap()
    }

    #[test]
    fn only_certificates_that_were_issued_and_not_taken_back_count_until_their_end() {
        let now = crate::catalog::now();
        let later = |days: i64| Micros(now.0 + days * Micros::DAY);
        let (pem, key) = Authority::create("a", now, 100 * DAY).unwrap();
        let authority = Authority::new(&pem, &key).unwrap();
        let device = DeviceId::new("edge-1").unwrap();
        let (one, two) = (certificate(&authority, &device, now), certificate(&authority, &device, now));
        let known = Known::default();
        let judge = |certificate: &Certificate, at| {
            known.judge(certificate, at, 5 * DAY).map(|counts| counts.used).map_err(|refused| refused.name())
        };
        assert_eq!(judge(&one, now), Err("unknown"));
        known.add(one.serial().clone(), Entry::new(device.clone(), &one));
        known.add(two.serial().clone(), Entry::new(device.clone(), &two));
        assert_eq!(
            (judge(&one, now), judge(&one, later(14)), judge(&one, later(16))),
            (Ok(false), Ok(false), Err("expired"))
        );

        // The new one is used: the old one has done its duty, and a connection that it made has outlived it.
        known.connected(&device, one.serial());
        known.first_use(&device, one.serial(), "superseded");
        assert_eq!(known.outlived(&device, now), None);
        assert_eq!(judge(&two, now), Ok(false), "the newer one waits for its turn");
        known.first_use(&device, two.serial(), "superseded");
        assert_eq!((judge(&one, now), judge(&two, now)), (Err("revoked"), Ok(true)));
        assert_eq!(known.outlived(&device, now).unwrap().name(), "revoked");
        known.connected(&device, two.serial());
        assert_eq!(known.outlived(&device, later(9)), None);
        assert_eq!(known.outlived(&device, later(11)).unwrap().name(), "expired");

        known.revoke(&device, "stolen");
        assert!(known.judge(&two, now, DAY).unwrap_err().to_string().ends_with("revoked: stolen"));
        known.forget(later(14), 5 * DAY);
        assert_eq!(judge(&two, now), Err("revoked"));
        known.forget(later(16), 5 * DAY);
        assert_eq!(judge(&two, now), Err("unknown"));
    }
}
