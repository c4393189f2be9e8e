//! Who may speak for which device, and how the hub proves that it is itself.
//!
//! The authority ([`authority`]) signs the hub's own certificate ([`own`]) and those of devices. A device gets its first
//! one for an enrolment token ([`tokens`], [`enrol`]; whether it does is decided in [`decide`]) and each later one for
//! the one before. Operators revoke them and let wiped devices enrol again ([`revoke`]). [`known`] holds in memory what
//! every connection and request is checked against, [`watch`] renews and warns in time.
//!
//! Of two certificates of a device the older stays good until the device has *connected with* the newer one over MQTT;
//! then it is superseded, which is as good as revoked. So no lost answer locks a device out, and a copied old key is
//! worth nothing as soon as the real device goes on.

mod config;
mod authority;
mod own;
mod limit;
mod decide;
mod known;
mod tokens;
mod certificates;
mod enrol;
mod revoke;
mod restored;
mod tally;
mod watch;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cloud_hub_gateway::ResetKey;
use tokio::sync::MutexGuard;
use tributary_identity::tls::{ALPN_HTTP, ALPN_MQTT, Clients, TlsError, hub_server};
use tributary_identity::{Authority, Certificate};
use tributary_process::disk::{RealDisk, create_folder_below};
use tributary_wire::{DeviceId, Micros};

use crate::access::Caller;
use crate::catalog::Catalog;

pub use certificates::Row as CertificateRow;
pub(crate) use certificates::first_use;
pub use config::IdentityConfig;
pub use decide::Refusal;
pub use enrol::{EnrolError, Issued};
pub use known::Refused;
pub use revoke::RevokeError;
pub use tokens::{Token, Wanted};
pub(crate) use watch::{metrics, run};

/// Renewals that one device may ask for per hour: one is enough, the rest is for lost answers. Each is kept for ever.
const RENEWALS_PER_HOUR: u32 = 20;
const MINUTE: Duration = Duration::from_secs(60);

/// The hub's authority, its own certificate, and all that it knows of its devices' certificates.
pub struct Identity {
    config: IdentityConfig,
    catalog: Catalog,
    authority: Authority,
    believed: Vec<Certificate>,
    reset: ResetKey,
    own: own::Own,
    known: known::Known,
    /// One change at a time, so that catalog and memory change in the same order.
    changing: tokio::sync::Mutex<()>,
    refusals: limit::Limiter<IpAddr>,
    renewals: limit::Limiter<DeviceId>,
    pub(crate) tally: tally::Tally,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("authority", &self.authority).finish_non_exhaustive()
    }
}

/// What a certificate, which TLS has accepted, is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It speaks for this device.
    Valid(DeviceId),
    /// It has expired not long ago: it may still renew itself, and nothing else.
    Expired(DeviceId),
    /// Nothing.
    Refused(Refused),
}

/// Runs a change to its end even when whoever asked for it goes away: the catalog must not change without the memory.
pub(crate) async fn to_the_end<T, E>(work: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<anyhow::Error> + Send + 'static,
{
    let done = tokio::spawn(Caller::current().scope(work)).await;
    done.map_err(|error| E::from(anyhow::Error::new(error).context("a change of certificates")))?
}

impl Identity {
    /// Opens what the last run left in the data folder; makes an authority and a certificate at the first start.
    pub async fn open(config: IdentityConfig, data: &Path, catalog: Catalog, now: Micros) -> anyhow::Result<Arc<Self>> {
        config.check()?;
        let folder = data.join("identity");
        create_folder_below(&RealDisk, data, &folder)
            .with_context(|| format!("could not create {}", folder.display()))?;
        let issued = certificates::count(catalog.reader()).await?;
        let authority::Opened { authority, believed, reset } = authority::open(&config, &folder, issued, now)?;
        let own = own::Own::open(&authority, &config, &folder, now)?;
        let oldest = Micros(now.0.saturating_sub(known::micros(config.grace.0)));
        let known = certificates::load(catalog.reader(), oldest).await.context("read the devices' certificates")?;
        tracing::info!(
            authority = %authority.certificate().fingerprint(), until = %authority.certificate().not_after(),
            "devices know this hub by the fingerprint of its authority"
        );
        Ok(Arc::new(Self {
            catalog,
            own,
            known,
            believed,
            reset,
            changing: tokio::sync::Mutex::default(),
            refusals: limit::Limiter::new(config.refusals_per_minute, MINUTE),
            renewals: limit::Limiter::new(RENEWALS_PER_HOUR, 60 * MINUTE),
            tally: tally::Tally::default(),
            authority,
            config,
        }))
    }

    /// The settings.
    pub fn config(&self) -> &IdentityConfig {
        &self.config
    }

    /// Who signs.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The authorities that devices and the hub believe, PEM.
    pub fn authorities_pem(&self) -> String {
        self.believed.iter().map(Certificate::to_pem).collect()
    }

    /// The certificate that the hub shows.
    pub fn own_certificate(&self) -> Certificate {
        self.own.current()
    }

    /// What QUIC connections of this hub's former lives are ended with.
    pub fn reset_key(&self) -> ResetKey {
        self.reset.clone()
    }

    fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    async fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// TLS for the web API: people come without a certificate, devices with theirs, also to renew one that has expired.
    pub fn https_config(&self) -> Result<rustls::ServerConfig, TlsError> {
        self.server(Clients::Optional { grace: self.config.grace.0 }, ALPN_HTTP)
    }

    /// TLS for MQTT over TCP: devices show their certificates, integrations a token instead.
    pub fn mqtt_tls_config(&self) -> Result<rustls::ServerConfig, TlsError> {
        self.server(Clients::Optional { grace: Duration::ZERO }, ALPN_MQTT)
    }

    /// TLS for MQTT over QUIC: devices only.
    pub fn mqtt_quic_config(&self) -> Result<rustls::ServerConfig, TlsError> {
        self.server(Clients::Required, ALPN_MQTT)
    }

    fn server(&self, clients: Clients, alpn: &[u8]) -> Result<rustls::ServerConfig, TlsError> {
        hub_server(self.own.shown(), &self.believed, clients, alpn)
    }

    /// Whose a certificate is that TLS has accepted, if it counts: it is one that this hub issued, it was not revoked
    /// and has not expired. A look into memory; asked at every connection and every request, because TLS sessions and
    /// kept-alive connections outlive a revocation.
    pub fn device(&self, certificate: &Certificate, now: Micros) -> Result<DeviceId, Refused> {
        self.known.judge(certificate, now, Duration::ZERO).map(|counts| counts.device)
    }

    /// As [`Self::device`], for a request that may also be for the next certificate.
    pub fn standing(&self, certificate: &Certificate, now: Micros) -> Standing {
        match self.known.judge(certificate, now, Duration::ZERO) {
            Ok(counts) => Standing::Valid(counts.device),
            Err(refused) => match self.known.judge(certificate, now, self.config.grace.0) {
                Ok(counts) => Standing::Expired(counts.device),
                Err(_) => Standing::Refused(refused),
            },
        }
    }

    /// As [`Self::device`], for a device that has its place in the table of connections. Also: the serial of a certificate that it uses for the first
    /// time, so that the older ones end, from now on in memory; whoever admits it brings this into the catalog.
    pub(crate) fn connects(&self, certificate: &Certificate, now: Micros) -> Result<(DeviceId, bool), Refused> {
        let counts = self.known.judge(certificate, now, Duration::ZERO)?;
        self.known.connected(&counts.device, certificate.serial());
        if !counts.used {
            self.known.first_use(&counts.device, certificate.serial(), certificates::SUPERSEDED);
        }
        Ok((counts.device, !counts.used))
    }

    /// Why the certificate that a device has connected with does not count any more, if so.
    pub(crate) fn outlived(&self, device: &DeviceId, now: Micros) -> Option<Refused> {
        self.known.outlived(device, now)
    }
}
