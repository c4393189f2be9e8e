//! The hub's own certificate: what it shows to devices and people, renewed while it is in use.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tributary_identity::tls::Shown;
use tributary_identity::{Authority, BACKDATED, Certificate, KeyFile};
use tributary_process::durable;
use tributary_wire::Micros;

use super::config::IdentityConfig;

/// The hub's own certificate and where it lies.
#[derive(Debug)]
pub(super) struct Own {
    certificate_file: PathBuf,
    key_file: PathBuf,
    names: Vec<String>,
    lifetime: Duration,
    shown: Arc<Shown>,
    current: Mutex<Certificate>,
}

impl Own {
    /// Reads what the last run has left; makes a new one if that cannot be used any more.
    pub fn open(authority: &Authority, config: &IdentityConfig, folder: &Path, now: Micros) -> anyhow::Result<Self> {
        let files = (folder.join("hub.pem"), folder.join("hub.key"));
        let names = config.written_names();
        let kept = read(&files.0, &files.1, authority).and_then(|(certificate, shown)| {
            match out_of_date(&certificate, &names, authority, now) {
                Some(why) => anyhow::bail!("{why}"),
                None => Ok((certificate, shown)),
            }
        });
        let (current, shown) = match kept {
            Ok(kept) => kept,
            Err(why) => {
                tracing::info!(why = format!("{why:#}"), "the hub gets a new certificate");
                issue(authority, &names, config.hub_lifetime.0, (&files.0, &files.1), now)?
            }
        };
        Ok(Self {
            certificate_file: files.0,
            key_file: files.1,
            names,
            lifetime: config.hub_lifetime.0,
            shown: Arc::new(shown),
            current: Mutex::new(current),
        })
    }

    /// What TLS shows; it follows every renewal.
    pub fn shown(&self) -> Arc<Shown> {
        self.shown.clone()
    }

    /// The certificate in use.
    pub fn current(&self) -> Certificate {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Renews the certificate if it is time; whether it was. The files are durable before anybody sees it.
    pub fn tend(&self, authority: &Authority, now: Micros) -> anyhow::Result<bool> {
        let Some(why) = out_of_date(&self.current(), &self.names, authority, now) else { return Ok(false) };
        let files = (self.certificate_file.as_path(), self.key_file.as_path());
        let (certificate, shown) = issue(authority, &self.names, self.lifetime, files, now)?;
        self.shown.replace(&shown);
        tracing::info!(why, serial = %certificate.serial(), until = certificate.not_after().0, "the hub renewed its certificate");
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = certificate;
        Ok(true)
    }
}

/// Why a certificate is not good enough any more.
fn out_of_date(certificate: &Certificate, names: &[String], authority: &Authority, now: Micros) -> Option<String> {
    let (from, to) = (certificate.not_before().0, certificate.not_after().0);
    let made = from.saturating_add(BACKDATED);
    let due = made.saturating_add(to.saturating_sub(made) / 3 * 2);
    if certificate.names() != names {
        Some(format!("its certificate is for {}, expected {}", certificate.names().join(", "), names.join(", ")))
    } else if now.0 >= due && certificate.not_after() < authority.certificate().not_after() {
        // One that ends with the authority is as good as any that it could still sign.
        Some("two thirds of its certificate's life are over".to_owned())
    } else if now.0 < from {
        Some("its certificate is not valid yet; the clock was set back".to_owned())
    } else {
        None
    }
}

/// What is shown: the certificate, and the authority's behind it, which devices that enrol know by its fingerprint.
fn chain(own: &Certificate, authority: &Authority) -> [Certificate; 2] {
    [own.clone(), authority.certificate().clone()]
}

fn read(certificate: &Path, key: &Path, authority: &Authority) -> anyhow::Result<(Certificate, Shown)> {
    let text = std::fs::read_to_string(certificate).with_context(|| format!("{}", certificate.display()))?;
    let kept = Certificate::all_from_pem(&text).with_context(|| format!("{}", certificate.display()))?;
    let [own, issuer] = kept.as_slice() else {
        anyhow::bail!("{} holds {} certificates, expected 2", certificate.display(), kept.len());
    };
    anyhow::ensure!(issuer == authority.certificate(), "the authority is another one now");
    // A crash between the two files leaves a key that does not belong to the certificate; the next line notices.
    let shown =
        Shown::from_pem(&chain(own, authority), &KeyFile::open(key)?.to_pem()).context("key and certificate")?;
    Ok((own.clone(), shown))
}

fn issue(
    authority: &Authority,
    names: &[String],
    lifetime: Duration,
    (certificate_file, key_file): (&Path, &Path),
    now: Micros,
) -> anyhow::Result<(Certificate, Shown)> {
    let issued = authority.issue_hub(names, now, lifetime);
    let (own, key) = issued.with_context(|| format!("a certificate for identity.names, {}", names.join(", ")))?;
    let chain = chain(&own, authority);
    let shown = Shown::from_pem(&chain, &key)?;
    durable::write_private(key_file, key.as_bytes()).with_context(|| format!("write {}", key_file.display()))?;
    let text: String = chain.iter().map(Certificate::to_pem).collect();
    durable::write(certificate_file, text.as_bytes())
        .with_context(|| format!("write {}", certificate_file.display()))?;
    Ok((own, shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = Micros::DAY;

    #[test]
    fn the_hubs_certificate_is_kept_renewed_in_time_and_made_anew_for_other_names() {
        let (folder, now) = (tempfile::tempdir().unwrap(), crate::catalog::now());
        let (pem, key) = Authority::create("a", now, Duration::from_secs(3_650 * 86_400)).unwrap();
        let authority = Authority::new(&pem, &key).unwrap();
        let mut config = IdentityConfig::default();
        let open = |config: &IdentityConfig, now| Own::open(&authority, config, folder.path(), now).unwrap();
        let own = open(&config, now);
        let first = own.current();
        assert_eq!(first.names(), ["localhost", "127.0.0.1", "::1"]);
        assert!(!own.tend(&authority, Micros(now.0 + 59 * DAY)).unwrap());
        assert_eq!(open(&config, now).current(), first);
        assert!(own.tend(&authority, Micros(now.0 + 61 * DAY)).unwrap());
        let second = own.current();
        assert_ne!(second, first);
        assert_eq!(open(&config, Micros(now.0 + 61 * DAY)).current(), second);
        config.names = vec!["Hub.Example".into(), "0:0::1".into()];
        let other = open(&config, Micros(now.0 + 61 * DAY));
        assert_eq!(other.current().names(), ["hub.example", "::1"]);
        assert!(!other.tend(&authority, Micros(now.0 + 62 * DAY)).unwrap());
    }

    #[test]
    fn half_written_exposed_or_foreign_files_lead_to_a_new_certificate() {
        let (folder, now) = (tempfile::tempdir().unwrap(), crate::catalog::now());
        let authority = || {
            let (pem, key) = Authority::create("a", now, Duration::from_secs(86_400)).unwrap();
            Authority::new(&pem, &key).unwrap()
        };
        let (one, two) = (authority(), authority());
        let open = |authority| {
            let own = Own::open(authority, &IdentityConfig::default(), folder.path(), now).unwrap();
            own.current()
        };
        let first = open(&one);
        // A crash after the key, before the certificate.
        KeyFile::generate().unwrap().save(&folder.path().join("hub.key")).unwrap();
        let second = open(&one);
        assert_ne!(first, second);
        std::fs::write(folder.path().join("hub.pem"), "-----BEGIN").unwrap();
        let third = open(&one);
        assert_ne!(second, third);
        assert_eq!(open(&one), third);
        assert_ne!(open(&two), third);

        // Near its own end the authority can give nothing better.
        let own = Own::open(&two, &IdentityConfig::default(), folder.path(), now).unwrap();
        assert!(!own.tend(&two, Micros(now.0 + DAY - 1)).unwrap());
    }
}
