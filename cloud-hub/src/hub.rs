//! The hub as a whole: its parts, how they are put together, and how they end.

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use cloud_hub_gateway::{Addresses, Connections, Gateway, TlsSettings};
use cloud_hub_lake::{Lake, Scan};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tributary_process::clock::SystemClock;
use tributary_process::disk::{RealDisk, create_folder_below};
use tributary_process::shutdown::Shutdown;
use tributary_wire::{DeviceId, Micros, StreamName};

use crate::access::Access;
use crate::admission::{self, ByIdentity, Seen};
use crate::api::{self, InFlight};
use crate::audit::{self, Change};
use crate::bus::{Bus, Follower};
use crate::catalog::Catalog;
use crate::config::Config;
use crate::identity::{self, Identity};
use crate::ingest::{self, Ingest};
use crate::orders::{self, Orders};
use crate::publish::{Keys, Streams};
use crate::registry::packages::PackageStore;
use crate::training::{self, Training};
use crate::{backup, materialize, monitor, patches, publish, rollout};

pub use crate::bus::HubEvent;

/// Messages between gateway and ingest, beside the limit on their bytes.
const QUEUE: usize = 1_024;
/// How long to wait for another hub's lock on the folder.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// How long the parts may take to end.
const DRAIN: Duration = Duration::from_secs(10);

/// Everything that the parts of the hub share.
#[derive(Debug)]
pub struct Hub {
    /// The settings.
    pub config: Config,
    /// The database.
    pub catalog: Catalog,
    /// The files.
    pub lake: Arc<Lake>,
    /// News.
    pub bus: Bus,
    /// Who is connected, and the way down to them.
    pub connections: Connections,
    /// The way into the lake.
    pub ingest: Ingest,
    /// Package files.
    pub packages: PackageStore,
    /// The hub's own keys.
    pub keys: Keys,
    /// The hub's authority and the devices' certificates.
    pub identity: Arc<Identity>,
    /// The way to the worker that trains.
    pub training: Training,
    /// Commands to devices.
    pub orders: Orders,
    /// Requests with an idempotency key that are being answered now.
    pub in_flight: Arc<InFlight>,
    /// Backups: who makes one, and the last.
    pub backups: backup::Backups,
    /// Tokens and sessions: who may call.
    pub access: Access,
    /// Counts connections to the web API.
    pub gate: Arc<api::gate::Gate>,
    https_address: SocketAddr,
    http_address: Option<SocketAddr>,
    mqtt_addresses: Addresses,
    starting: Mutex<Option<Starting>>,
}

/// What exists from the building of a hub until it runs.
struct Starting {
    gateway: Gateway,
    web: api::Listeners,
    ingest: ingest::Worker,
    results: orders::Incoming,
    lock: File,
}

impl std::fmt::Debug for Starting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Starting").finish_non_exhaustive()
    }
}

/// The folder belongs to another hub that works.
#[derive(Debug, thiserror::Error)]
#[error("another hub works in {}", .0.display())]
struct Held(PathBuf);

/// Makes this hub the only one in its folder: a second one would clear away files that the first is about to commit.
/// The system lets go of the lock when the process ends, however it ends; a program that it was just starting has it for a
/// moment longer, so one look is not enough.
async fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join("lock");
    let file = File::create(&path).with_context(|| format!("could not create {}", path.display()))?;
    let deadline = tokio::time::Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(TryLockError::WouldBlock) => return Err(Held(data.to_owned()).into()),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("could not lock {}", path.display()));
            }
        }
    }
}

/// A start brings new settings, and perhaps another program, into force.
async fn written_down(catalog: &Catalog, config: &Config) -> anyhow::Result<()> {
    let settings = tributary_release::digest(&serde_json::to_vec(config)?);
    let to = serde_json::json!({"version": env!("CARGO_PKG_VERSION"), "settings_sha256": settings});
    let mut transaction = catalog.write().await?;
    let change = Change { action: "hub.start", subject: "hub", from: serde_json::Value::Null, to };
    audit::record(&mut transaction, change, crate::catalog::now()).await?;
    transaction.commit().await?;
    Ok(())
}

impl Hub {
    /// Opens catalog and lake, clears up after a crash, and takes the ports. Nothing is served yet.
    pub async fn build(mut config: Config) -> anyhow::Result<Arc<Self>> {
        // Runs name files for their child process, which takes a relative path from the run's own folder.
        config.data_dir = std::path::absolute(&config.data_dir).context("where data_dir lies")?;
        let data = &config.data_dir;
        // The folder's own name must survive a power cut too, else all that is durable inside is lost with it.
        let above = data.ancestors().skip(1).find(|above| above.is_dir()).unwrap_or(Path::new(""));
        let made = create_folder_below(&RealDisk, above, data);
        made.with_context(|| format!("could not create {}", data.display()))?;
        let lock = lock(data).await?;
        backup::check_finished(data)?;
        config.backup.check()?;
        let catalog = Catalog::open(&data.join("catalog.db")).await.context("could not open the catalog")?;
        let lake = Lake::open(Arc::new(RealDisk), data.join("lake")).context("could not open the lake")?;
        let packages = PackageStore::open(&data.join("packages")).context("could not open the package store")?;
        config.publish.check()?;
        let keys = Keys::open(&data.join("keys"))?;
        publish::announce(&mut *catalog.reader().acquire().await?, &keys)
            .await
            .context("read the repository's targets")?;
        let access = Access::new(catalog.clone(), config.access.clone());
        access.first_token(&data.join("keys")).await?;
        let identity = Identity::open(config.identity.clone(), data, catalog.clone(), crate::catalog::now()).await?;
        let tls = TlsSettings {
            tls: Arc::new(identity.mqtt_tls_config()?),
            quic: Arc::new(identity.mqtt_quic_config()?),
            reset: identity.reset_key(),
        };
        let gateway = Gateway::bind(&config.gateway.listeners(), config.gateway.limits(), Some(tls)).await?;
        let web = api::Listeners::bind(&config.api, Arc::new(identity.https_config()?)).await?;
        let connections = gateway.connections();
        let (orders, results, incoming) = Orders::new();
        let parts = ingest::Parts {
            catalog: catalog.clone(),
            lake: Arc::new(lake),
            quarantine: data.join("quarantine"),
            bus: Bus::default(),
            answers: Arc::new(connections.clone()),
            results,
            queue_bytes: config.gateway.queue_bytes.0,
            config: config.ingest.clone(),
            clock: Arc::new(SystemClock::start()),
        };
        // Before anything is called an orphan.
        ingest::take_in(&parts).await.context("could not take in what was stored after the backup")?;
        let recovered = ingest::recover(&parts).await.context("could not recover the lake")?;
        tracing::info!(?recovered, data = %data.display(), "opened");
        written_down(&catalog, &config).await.context("could not write the start into the audit log")?;
        let (lake, bus) = (parts.lake.clone(), parts.bus.clone());
        let (ingest, worker) = ingest::new(parts);
        Ok(Arc::new(Self {
            catalog,
            lake,
            bus,
            connections,
            ingest,
            packages,
            keys,
            identity,
            access,
            training: Training::default(),
            orders,
            in_flight: Arc::default(),
            backups: backup::Backups::default(),
            gate: web.gate(),
            https_address: web.https_address()?,
            http_address: web.plain_address()?,
            mqtt_addresses: gateway.addresses(),
            starting: Mutex::new(Some(Starting { gateway, web, ingest: worker, results: incoming, lock })),
            config,
        }))
    }

    /// Serves until the signal is given or a part fails. Then devices are told to go, what was received is committed,
    /// and the catalog is closed.
    pub async fn run(self: Arc<Self>, shutdown: Shutdown) -> anyhow::Result<()> {
        let starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The lock is held to the end.
        let Starting { gateway, web, ingest, results, lock: _lock } = starting.context("the hub was run before")?;
        let (up, queue) = mpsc::channel(QUEUE);
        let (events, coming) = mpsc::channel(QUEUE);
        let seen = Seen::default();
        let admission = Arc::new(ByIdentity::new(self.identity.clone(), self.access.clone(), seen.clone()));

        // Ingest ends last: it commits what the gateway had already taken.
        let stop_ingest = Shutdown::new();
        let mut ingesting = tokio::spawn(ingest.run(queue, stop_ingest.clone()));

        let mut parts: JoinSet<anyhow::Result<&'static str>> = JoinSet::new();
        let stop = shutdown.child();
        let gateway = gateway.with_files(Arc::new(Streams(self.clone())));
        let serving = gateway.run(admission, up, events, stop.clone());
        parts.spawn(async move {
            serving.await;
            Ok("gateway")
        });
        parts.spawn(name("connections", admission::watch(self.clone(), coming)));
        parts.spawn(name("arrivals", seen.run(self.catalog.clone(), stop.clone())));
        // One line per part of the hub that runs for ever.
        parts.spawn(name("access", self.access.clone().run(stop.clone())));
        parts.spawn(name("web API", api::serve(self.clone(), web, stop.clone())));
        parts.spawn(name("identity", identity::run(self.clone(), stop.clone())));
        parts.spawn(name("features", materialize::run(self.clone(), stop.clone())));
        parts.spawn(name("training", training::work(self.clone(), stop.clone())));
        parts.spawn(name("monitor", monitor::run(self.clone(), stop.clone())));
        parts.spawn(name("repository", publish::run(self.clone(), stop.clone())));
        parts.spawn(name("expiry warnings", publish::warnings::run(self.clone(), stop.clone())));
        parts.spawn(name("patches", patches::run(self.clone(), stop.clone())));
        parts.spawn(name("rollouts", rollout::run(self.clone(), stop.clone())));
        parts.spawn(name("backups", backup::schedule::run(self.clone(), stop.clone())));
        parts.spawn(name("commands", orders::run(self.clone(), results, stop.clone())));

        let mut failed = None;
        tokio::select! {
            biased;
            () = stop.given() => {}
            Some(ended) = parts.join_next() => failed = Some(ended_early(ended)),
            ended = &mut ingesting => failed = Some(ended_early(ended.map(|end| end.map(|()| "ingest")))),
        }
        stop.give();
        let drained = async {
            while let Some(ended) = parts.join_next().await {
                if let Ok(Err(error)) | Err(error) = ended.map_err(anyhow::Error::from) {
                    failed.get_or_insert(error);
                }
            }
        };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!("parts of the hub did not end in time");
        }
        parts.abort_all();
        stop_ingest.give();
        if !ingesting.is_finished() && tokio::time::timeout(DRAIN, ingesting).await.is_err() {
            tracing::warn!("ingest did not end in time; what it had not committed will come again");
        }
        self.catalog.close().await;
        failed.map_or(Ok(()), Err)
    }

    /// Where the web API listens.
    pub fn https_address(&self) -> SocketAddr {
        self.https_address
    }

    /// Where it listens without encryption, if it does.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// Where devices connect.
    pub fn mqtt_addresses(&self) -> Addresses {
        self.mqtt_addresses
    }

    /// The folder of everything durable.
    pub fn data(&self) -> &Path {
        &self.config.data_dir
    }

    /// Wall time now.
    pub fn now(&self) -> Micros {
        crate::catalog::now()
    }

    /// Whether a device has a live connection.
    pub fn is_connected(&self, device: &DeviceId) -> bool {
        self.connections.is_connected(device)
    }

    /// Counters and gauges in the text form of Prometheus.
    pub async fn metrics_text(&self) -> Result<String, sqlx::Error> {
        crate::metrics::text(self).await
    }

    /// Follows the files of a stream from after file `number` (0: from the first); see [`Follower`].
    pub fn follow(&self, stream: &StreamName, number: i64) -> Follower {
        self.bus.follow(self.lake.clone(), stream.clone(), number)
    }

    /// Records of a stream; see [`Lake::scan`].
    pub fn scan(
        &self,
        stream: &StreamName,
        days: std::ops::RangeInclusive<i64>,
        columns: Option<&[&str]>,
    ) -> Result<Scan, cloud_hub_lake::LakeError> {
        self.lake.scan(stream, days, columns)
    }
}

/// Gives the end of a part its name.
async fn name(name: &'static str, part: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<&'static str> {
    part.await.with_context(|| format!("{name} failed"))?;
    Ok(name)
}

fn ended_early(ended: Result<anyhow::Result<&'static str>, tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok(Ok(name)) => anyhow::anyhow!("{name} ended though nobody asked it to"),
        Ok(Err(error)) => error,
        Err(error) => anyhow::Error::from(error).context("a part of the hub panicked"),
    }
}

/// Runs a hub until SIGTERM or SIGINT. Its addresses stand in `addresses.json` in its data folder, and in the log.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    tributary_process::logging::init(&config.log)?;
    let shutdown = Shutdown::on_signal().context("could not listen for signals")?;
    let hub = Hub::build(config).await.map_err(cannot_start)?;
    let Addresses { quic, tls, plain } = hub.mqtt_addresses();
    let mut addresses = serde_json::json!({ "https": hub.https_address() });
    for (name, address) in [("http", hub.http_address()), ("mqtt_quic", quic), ("mqtt_tls", tls), ("mqtt", plain)] {
        if let Some(address) = address {
            addresses[name] = address.to_string().into();
        }
    }
    let path = hub.data().join("addresses.json");
    tributary_process::durable::write(&path, addresses.to_string().as_bytes())
        .with_context(|| format!("could not write {}", path.display()))?;
    tracing::info!(%addresses, "serving");
    hub.run(shutdown).await
}

/// A start that is tried again and again says the same each time, and where a person finds more.
fn cannot_start(error: anyhow::Error) -> anyhow::Error {
    let held = error.is::<Held>();
    error.context(match held {
        true => "cannot start (another process works with this data)",
        false => "cannot start (`cloud-hub doctor` with the same settings says what is wrong and what to do)",
    })
}
