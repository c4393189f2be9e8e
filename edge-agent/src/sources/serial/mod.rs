//! Sensor nodes on serial lines: one [`Serial`] per line, each with the node that belongs there.
//!
//! What is decided stands in `edge_agent_core::node`. Here are the line itself ([`port`]), the loop that carries out the
//! decisions ([`run`], [`records`]), images on their way to the node ([`images`]), and what is known of the node ([`inventory`]). A window becomes an event whose id names node,
//! session and record, so a record that comes twice is recognised like any other event; it is acknowledged to the node
//! once it is durable here. Raw windows are kept as files.

mod images;
mod inventory;
mod port;
mod raw;
mod records;
mod run;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use edge_agent_core::node::Parcel;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tributary_process::clock::Clock;
use tributary_process::config::HumanDuration;
use tributary_process::shutdown::Shutdown;
use tributary_wire::link::{BlobKind, NodeName, Order, Outcome};

use super::{TimeDomain, TimeRules};
use crate::serve::Serving;
pub use images::{ImageError, ImageSource};
pub use inventory::NodeStatus;
pub use port::{PortName, WrongPort};

/// Orders that may wait for one node's loop.
const ORDERS: usize = 8;
/// How long somebody who gave an order waits for its outcome: a node that is there answers within a second or two.
const OUTCOME_WITHIN: Duration = Duration::from_secs(15);

/// A line with a sensor node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SerialConfig {
    /// Where it is: a path such as `/dev/ttyUSB0`; for tests and gateways also `tcp:HOST:PORT` and `unix:PATH`.
    pub port: PortName,
    /// Speed of a real line in bits per second.
    pub baud: u32,
    /// The node that belongs there; another one is refused. It is also the name of the source.
    pub node: String,
    /// What its times mean: they are of the agent's clock.
    pub time: TimeDomain,
    /// How far behind the newest event of the node another may come.
    pub lateness: HumanDuration,
    /// How many raw windows of it are kept; the oldest go first.
    pub raw_windows: usize,
    /// File with the public keys of those who make images for nodes of this type. Without it none is brought by hand.
    pub image_keys: Option<PathBuf>,
}

impl Default for SerialConfig {
    fn default() -> Self {
        Self {
            port: PortName::default(),
            baud: 115_200,
            node: String::new(),
            time: TimeDomain::Live,
            lateness: TimeRules::default().lateness,
            raw_windows: 96,
            image_keys: None,
        }
    }
}

impl SerialConfig {
    /// Whether `node` is a name that a node can have.
    pub fn names_a_node(&self) -> bool {
        NodeName::new(&self.node).is_ok()
    }

    fn rules(&self) -> TimeRules {
        TimeRules { time: self.time, lateness: self.lateness, ..TimeRules::default() }
    }
}

/// What a line's loop works with.
pub struct SerialParts {
    /// The pipeline.
    pub serving: Arc<Serving>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
}

/// Why an order has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Nobody is there, or it does not answer.
    #[error("node {node:?} did not answer within {} s", OUTCOME_WITHIN.as_secs())]
    NoAnswer {
        /// Which node.
        node: String,
    },
    /// Too many wait.
    #[error("{ORDERS} orders to node {node:?} wait already")]
    Full {
        /// Which node.
        node: String,
    },
}

/// What somebody wants of a line's loop.
#[derive(Debug)]
enum Wanted {
    Order(Order, oneshot::Sender<Outcome>),
    Image(Parcel),
}

/// A line and its node.
#[derive(Clone)]
pub struct Serial {
    config: Arc<SerialConfig>,
    /// For what is kept of its node.
    folder: Arc<Path>,
    status: Arc<Mutex<NodeStatus>>,
    wants: mpsc::Sender<Wanted>,
    wanted: Arc<Mutex<Option<mpsc::Receiver<Wanted>>>>,
    source: Option<Arc<dyn ImageSource>>,
}

impl Serial {
    /// One that is not open yet; what is kept of its node lies below the agent's state.
    pub fn new(config: SerialConfig, state_dir: &Path) -> Self {
        let folder = state_dir.join("nodes").join(&config.node).into();
        let (wants, wanted) = mpsc::channel(ORDERS);
        let status = NodeStatus::new(&config);
        let (status, wanted) = (Arc::new(Mutex::new(status)), Arc::new(Mutex::new(Some(wanted))));
        Self { config: Arc::new(config), folder, status, wants, wanted, source: None }
    }

    /// Name of its node.
    pub fn node(&self) -> &str {
        &self.config.node
    }

    /// How it stands.
    pub fn status(&self) -> NodeStatus {
        self.status_mut().clone()
    }

    fn status_mut(&self) -> MutexGuard<'_, NodeStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has its node do something once.
    pub async fn order(&self, order: Order) -> Result<Outcome, OrderError> {
        let (reply, outcome) = oneshot::channel();
        let node = || self.config.node.clone();
        self.wants.try_send(Wanted::Order(order, reply)).map_err(|_| OrderError::Full { node: node() })?;
        let answered = tokio::time::timeout(OUTCOME_WITHIN, outcome).await;
        answered.ok().and_then(Result::ok).ok_or_else(|| OrderError::NoAnswer { node: node() })
    }

    /// Images come from there.
    pub fn with_images(self, source: Arc<dyn ImageSource>) -> Self {
        Self { source: Some(source), ..self }
    }

    /// Brings an image that somebody has in hand to its node, once the keys for that hold; its kind and version. It is
    /// kept until the node runs it or refuses it; the status says how far it is.
    pub async fn bring(&self, bytes: &[u8]) -> Result<(BlobKind, u32), ImageError> {
        let checked = images::checked(&self.config, self.status().kind.as_deref(), bytes);
        self.give(self.judged(checked)?).await
    }

    /// Brings a version of the signed repository to its node.
    pub async fn update(&self, version: u32) -> Result<(BlobKind, u32), ImageError> {
        let source = self.source.as_deref().ok_or(ImageError::NoRepository)?;
        let kind = self.status().kind.ok_or(ImageError::Unknown)?;
        let fetched = images::fetched(source, &kind, version).await;
        self.give(self.judged(fetched)?).await
    }

    /// An image that does not hold is counted, logged and shown; whoever brought it is told all the same.
    fn judged(&self, checked: Result<Parcel, ImageError>) -> Result<Parcel, ImageError> {
        if let Err(error) = &checked
            && error.is_refusal()
        {
            let why = error.to_string();
            tracing::warn!(node = self.node(), error = why, "an image for a sensor node was refused");
            self.status_mut().turned_away(&why, error.is_of_the_image());
        }
        checked
    }

    async fn give(&self, parcel: Parcel) -> Result<(BlobKind, u32), ImageError> {
        let place = self.wants.try_reserve().map_err(|_| ImageError::Full)?;
        let (folder, kept) = (self.folder.clone(), parcel.clone());
        let stored = tokio::task::spawn_blocking(move || images::keep(&folder, &kept)).await;
        stored.map_err(std::io::Error::other).flatten().map_err(ImageError::Store)?;
        let (kind, version) = (parcel.kind, parcel.version);
        place.send(Wanted::Image(parcel));
        Ok((kind, version))
    }

    /// Serves the line until the signal; opens it again whenever it is lost.
    pub async fn run(self, parts: SerialParts, shutdown: Shutdown) {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(wanted) = wanted {
            shutdown.unless_given(run::Loop::new(self, parts, wanted).run()).await;
        }
    }
}
