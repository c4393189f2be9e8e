//! The wiring: who feeds whom, and in which order all of it begins and ends.
//!
//! ```text
//! local API ─┐                       ┌─► state (redb) ─► link ─► hub
//! replay ────┴─► queue ─► pipeline ──┤                    │
//!                (bounded)   ▲       └─► window snapshot  ▼
//!                            └──── packages ◄────────── updater
//! ```

mod hub;
mod parts;
mod handles;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context as _;
use tokio::task::JoinSet;
use tributary_features::ViewError;
use tributary_process::clock::{Clock, SystemClock};
use tributary_process::logging::Tail;
use tributary_process::shutdown::Shutdown;
use tributary_wire::Micros;

use handles::{Images, condition, end, report, rotate_key, shown};
use hub::HubAccess;
use parts::{origins, pipeline_config, read_view, trust, updates};

use crate::api::{self, Api, BindError, Sockets, StatusSource};
use crate::config::{Config, InvalidConfig};
use crate::download::{MirrorError, Origins};
use crate::identity::{self, Renewal, Web};
use crate::link::{self, FileStreams, Link, LinkStatus};
use crate::metrics::Metrics;
use crate::orders;
use crate::orders::restart::Wanted;
use crate::serve::{Pipeline, Serving, StartError};
use crate::sources::{ImageSource, Replay, Serial, SerialConfig, SerialParts};
use crate::state::{SourceState, Store, StoreError, StoreOptions};
use crate::trust::{Trust, TrustError};
use crate::update::{Handle, UpdateError, Updates};

/// Why an agent cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Settings contradict each other.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// A folder or file cannot be used.
    #[error("{}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The configured view is not one.
    #[error("feature view {}", .path.display())]
    View {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: ViewError,
    },
    /// The state cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The pipeline cannot start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The root of trust is not one.
    #[error("root of trust")]
    Trust(#[from] TrustError),
    /// The hub's address is not one.
    #[error("`hub.insecure_plain_http`: {0}")]
    Hub(String),
    /// The mirrors cannot be used.
    #[error(transparent)]
    Mirrors(#[from] MirrorError),
    /// The packages that were in place cannot be put back.
    #[error("packages")]
    Update(#[from] UpdateError),
    /// A socket cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// An agent that is bound but does not work yet.
pub struct Agent {
    config: Config,
    hub: HubAccess,
    clock: Arc<dyn Clock>,
    store: Arc<Store>,
    serving: Arc<Serving>,
    pipeline: JoinHandle<()>,
    trust: Trust,
    updates: Updates,
    handle: Handle,
    streams: FileStreams,
    origins: Origins,
    sockets: Sockets,
    metrics: Arc<Metrics>,
    replays: Vec<(Replay, Option<SourceState>)>,
    nodes: Vec<Serial>,
    log: Tail,
    restart: Wanted,
}

impl Agent {
    /// Opens the state, brings the windows back and binds the sockets.
    pub async fn build(mut config: Config) -> Result<Self, BuildError> {
        config.check()?;
        let folder = config.state_dir.clone();
        std::fs::create_dir_all(&folder).map_err(|source| BuildError::File { path: folder.clone(), source })?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let hub = HubAccess::open(&mut config)?;
        let options = StoreOptions {
            cache_bytes: config.state.cache.0 as usize,
            outbox_budget: config.outbox.budget.0,
            wall: Micros(clock.wall()),
            ..StoreOptions::default()
        };
        let store = Arc::new(Store::open(&folder.join("state.redb"), options)?);
        let metrics = Arc::new(Metrics::default());
        let view = config.view.as_deref().map(read_view).transpose()?;
        let pipeline_config = pipeline_config(&config, view, &store, hub.time.over(clock.clone()), &metrics);
        let pipeline = Pipeline::build(store.clone(), pipeline_config)?;
        let serving = pipeline.serving();
        let streams = FileStreams::default();
        let origins = origins(&config, &hub, &streams, clock.clone(), &metrics)?;
        // Committed packages are in place before the first event is served.
        let trust = trust(&config, &hub, &origins, &store, clock.clone()).await?;
        let (updates, handle) = updates(&config, &hub, &trust, &origins, &store, &serving, clock.clone()).await?;
        let sockets =
            Sockets::bind(config.listen.tcp, config.listen.unix.as_ref().map(|path| folder.join(path))).await?;
        let sources = serving.shown().sources;
        let stored = |name: &str| sources.iter().find(|(known, _)| known == name).map(|(_, state)| state.clone());
        let replays = config.sources.replay.iter().map(|replay| (Replay::new(replay.clone()), stored(&replay.name)));
        let replays = replays.collect();
        let images: Arc<dyn ImageSource> = Arc::new(Images(trust.clone()));
        let serial = |serial: &SerialConfig| Serial::new(serial.clone(), &config.state_dir).with_images(images.clone());
        let nodes = config.sources.serial.iter().map(serial).collect();
        let pipeline = pipeline.start()?;
        let (log, restart) = (Tail::default(), Wanted::default());
        Ok(Self {
            config,
            hub,
            clock,
            store,
            serving,
            pipeline,
            trust,
            updates,
            handle,
            streams,
            origins,
            sockets,
            metrics,
            replays,
            nodes,
            log,
            restart,
        })
    }

    /// Shows the process's log to whom the hub's commands send it.
    #[must_use]
    pub fn with_log(mut self, log: Tail) -> Self {
        self.log = log;
        self
    }

    /// Whether the process should be started again once [`Self::run`] has returned.
    pub fn restart_wanted(&self) -> Wanted {
        self.restart.clone()
    }

    /// The address of the local API, when it listens on TCP.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.sockets.tcp_address()
    }

    /// The path of the local API, when it listens on a Unix socket.
    pub fn unix_path(&self) -> Option<&Path> {
        self.sockets.unix_path()
    }

    /// The handle to the pipeline.
    pub fn serving(&self) -> Arc<Serving> {
        self.serving.clone()
    }

    /// The state.
    pub fn store(&self) -> Arc<Store> {
        self.store.clone()
    }

    /// Works until `shutdown` is given, then drains: sources first, then what they sent, then the state.
    pub async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let Self {
            config,
            hub,
            clock,
            store,
            serving,
            pipeline,
            trust,
            updates,
            handle,
            streams,
            origins,
            sockets,
            metrics,
            replays,
            nodes,
            log,
            restart,
        } = self;
        let link_status = Arc::new(LinkStatus::new(metrics.link.clone()));
        let status = Arc::new(StatusSource {
            device: config.device.clone(),
            store: store.clone(),
            serving: serving.clone(),
            replays: replays.iter().map(|(replay, _)| replay.clone()).collect(),
            nodes: nodes.clone(),
            metrics: metrics.clone(),
            report: report(handle.clone(), trust.clone(), link_status.clone(), origins.status(), hub.clone()),
        });
        let (renewal, renewals) = Renewal::channel();
        let parts = orders::Parts {
            config: config.commands.clone(),
            folder: config.state_dir.join("commands"),
            state_dir: config.state_dir.clone(),
            log,
            settings: toml::to_string(&config).context("print the settings")?,
            status: shown(&status, StatusSource::json),
            metrics: shown(&status, StatusSource::metrics_text),
            restart: end(restart, &shutdown),
            rotate_key: rotate_key(hub.identity.as_ref().map(|_| renewal)),
            clock: hub.time.over(clock.clone()),
        };
        let (orders, carrying_out) = orders::new(parts).context("commands of the hub")?;
        let link = Link {
            device: config.device.clone(),
            way: hub.way.clone(),
            config: config.link,
            store: store.clone(),
            serving: serving.clone(),
            updates: handle,
            orders,
            condition: condition(status.clone(), config.labels.into_iter().collect()),
            files: streams,
            status: link_status,
            clock: hub.time.over(clock.clone()),
            seed: rand::random(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(updates.run(shutdown.clone()));
        tasks.spawn(link::run(link, shutdown.clone()));
        if !matches!(hub.web, Web::Nowhere) {
            tasks.spawn(trust.run(config.update.refresh_every.0, shutdown.clone()));
            let every = config.update.refresh_every.0;
            tasks.spawn(identity::compare(hub.web.clone(), hub.time.clone(), every, shutdown.clone()));
        }
        tasks.spawn(orders::run(carrying_out, shutdown.clone()));
        if let Some(identity) = hub.identity {
            tasks.spawn(identity::renew(identity, renewals, shutdown.clone()));
        }
        for (replay, stored) in replays {
            tasks.spawn(replay.run(serving.clone(), stored, shutdown.clone()));
        }
        for node in nodes {
            let parts = SerialParts { serving: serving.clone(), clock: clock.clone() };
            tasks.spawn(node.run(parts, shutdown.clone()));
        }
        let api = Api { serving: serving.clone(), rules: config.sources.api, limits: config.limits, metrics, status };
        let served = api::serve(sockets, Arc::new(api), shutdown.clone()).await;
        // The sockets only close by themselves when they broke: then nobody can use this agent any more.
        shutdown.give();
        while tasks.join_next().await.is_some() {}
        serving.stop();
        let drained = tokio::task::spawn_blocking(move || pipeline.join()).await?;
        anyhow::ensure!(drained.is_ok(), "the pipeline ended in a panic");
        Ok(served?)
    }
}
