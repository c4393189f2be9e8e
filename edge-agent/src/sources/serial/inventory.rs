//! What is known of a node.

use edge_agent_core::node::{Delivered, End, Progress};
use serde::Serialize;
use tributary_wire::NodeReport;
use tributary_wire::link::{About, BlobKind, Crash, Health, Held, Holds, Sensor};

use super::SerialConfig;

/// A node and its line, as the agent's status and report show it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct NodeStatus {
    /// Its name.
    pub node: String,
    /// Where it is.
    pub port: String,
    /// The line is open.
    pub open: bool,
    /// The node was heard lately.
    pub there: bool,
    /// Its session.
    pub session: Option<u32>,
    /// What kind of node it says it is.
    pub kind: Option<String>,
    /// Its firmware.
    pub firmware: Option<String>,
    /// Starts since its power came.
    pub starts: Option<u32>,
    /// Samples per second.
    pub rate: Option<u32>,
    /// Samples of a window, and from one to the next.
    pub window: Option<(u16, u16)>,
    /// The score above which a window is an anomaly.
    pub threshold: Option<u32>,
    /// How far off its times may be, in microseconds.
    pub clock_error_us: Option<u64>,
    /// How its accelerometer is: `well`, `missing` or `stuck`.
    pub sensor: Option<&'static str>,
    /// What it counts since its start.
    pub health: Option<NodeHealth>,
    /// Why it had to start again the last time it did.
    pub crash: Option<String>,
    /// Windows over the threshold, since the agent's start.
    pub anomalies: u64,
    /// The last score of each axis.
    pub scores: Vec<Option<u32>>,
    /// Windows that became events.
    pub accepted: u64,
    /// Of those, windows that were there before.
    pub duplicates: u64,
    /// Windows refused.
    pub refused: u64,
    /// What was wrong with the last one.
    pub last_refusal: Option<String>,
    /// Raw windows kept as files since the agent's start.
    pub raw_windows: u64,
    /// Records that the node overwrote before they could come.
    pub lost: u64,
    /// Records that came again.
    pub repeated: u64,
    /// Frames that were damaged.
    pub damaged: u64,
    /// Messages that belong to nobody here.
    pub strange: u64,
    /// Version of the model that came over the line; 0: the one that its firmware was built with.
    pub model: Option<NodeVersion>,
    /// Version of the image that it runs.
    pub image: Option<NodeVersion>,
    /// The image on its way to it.
    pub bringing: Option<Bringing>,
    /// What became of the last one.
    pub brought: Option<String>,
    /// Images that did not hold here, or that the node refused or went back from, since the agent's start.
    pub images_failed: u64,
    /// Whether the last one was among them.
    #[serde(skip)]
    failed: bool,
    /// As the node told it.
    #[serde(skip)]
    told: Told,
    /// Why the line is not open, or its node is not taken in.
    pub problem: Option<String>,
}

/// What a node last said of its present life.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Told {
    health: Option<Health>,
    model: Option<Holds>,
    image: Option<Holds>,
}

/// What a node runs of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct NodeVersion {
    /// Its version.
    pub version: u32,
    /// The lowest rollback index that the node would take.
    pub rollback: u32,
    /// `confirmed`, `trial` or `reverted`.
    pub state: &'static str,
}

/// An image on its way.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bringing {
    /// `model` or `firmware`.
    pub kind: &'static str,
    /// Its version.
    pub version: u32,
    /// Bytes that the node has.
    pub sent: u32,
    /// Bytes of all.
    pub length: u32,
}

pub(super) fn word(kind: BlobKind) -> &'static str {
    match kind {
        BlobKind::Model => "model",
        BlobKind::Firmware => "firmware",
    }
}

/// What a node counts since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct NodeHealth {
    /// Samples taken.
    pub samples: u32,
    /// Readings that failed.
    pub sensor_errors: u32,
    /// Samples that nobody had time for.
    pub overrun: u32,
    /// Windows analysed.
    pub windows: u32,
    /// Records overwritten.
    pub overwritten: u32,
    /// Frames refused.
    pub refused: u32,
    /// The longest analysis of one window of all axes, in ticks of the node's clock.
    pub busiest_ticks: u32,
    /// How often that clock ticks in a second.
    pub ticks: Option<u32>,
    /// Bytes of stack, and of those never used.
    pub stack: (u32, u32),
}

impl NodeStatus {
    pub(super) fn new(config: &SerialConfig) -> Self {
        Self { node: config.node.clone(), port: config.port.to_string(), ..Self::default() }
    }

    pub(super) fn about(&mut self, about: &About<'_>) {
        let (major, minor, patch) = about.firmware;
        self.kind = Some(about.kind.to_string());
        self.firmware = Some(format!("{major}.{minor}.{patch}"));
        self.starts = Some(about.starts);
        self.rate = Some(about.rate);
        self.window = Some((about.window, about.hop));
        self.threshold = about.threshold;
        self.scores.resize(usize::from(about.axes), None);
        self.health.get_or_insert_default().ticks = Some(about.ticks);
    }

    pub(super) fn health(&mut self, health: &Health) {
        self.sensor = Some(match health.sensor {
            Sensor::Well => "well",
            Sensor::Missing => "missing",
            Sensor::Stuck => "stuck",
        });
        self.told.health = Some(*health);
        let ticks = self.health.and_then(|health| health.ticks);
        self.health = Some(NodeHealth {
            samples: health.samples,
            sensor_errors: health.sensor_errors,
            overrun: health.overrun,
            windows: health.windows,
            overwritten: health.overwritten,
            refused: health.refused,
            busiest_ticks: health.busiest,
            ticks,
            stack: (health.stack, health.stack_untouched),
        });
    }

    pub(super) fn crash(&mut self, crash: &Crash<'_>) {
        let seconds = crash.uptime as f64 / 1e6;
        let place = match crash.file {
            "" => format!("at {:#010x}", crash.place),
            file => format!("in {file}:{}", crash.place),
        };
        self.crash = Some(format!("{:?} {place} after {seconds:.1} s", crash.kind).to_lowercase());
    }

    pub(super) fn holds(&mut self, holds: &Holds) {
        let state = match holds.state {
            Held::Confirmed => "confirmed",
            Held::Trial => "trial",
            Held::Reverted { .. } => "reverted",
        };
        let version = Some(NodeVersion { version: holds.version, rollback: holds.rollback, state });
        match holds.kind {
            BlobKind::Model => (self.model, self.told.model) = (version, Some(*holds)),
            BlobKind::Firmware => (self.image, self.told.image) = (version, Some(*holds)),
        }
    }

    pub(super) fn bringing(&mut self, progress: Option<Progress>) {
        self.bringing = progress.map(|Progress { kind, version, sent, length }| {
            let kind = word(kind);
            Bringing { kind, version, sent, length }
        });
    }

    pub(super) fn delivered(&mut self, delivered: &Delivered) {
        let Delivered { kind, version, end } = *delivered;
        let what = format!("{} {version}", word(kind));
        self.failed = end != End::Confirmed;
        self.images_failed += u64::from(self.failed);
        self.brought = Some(match end {
            End::Confirmed => format!("{what} runs and passed the node's self-test"),
            End::Reverted => format!("{what} did not pass the node's self-test; what ran before runs again"),
            End::Refused(problem) => format!("{what} was refused: {problem}"),
        });
    }

    /// An image did not get past the agent. It is the node's trouble only when the image itself `is_wrong`.
    pub(super) fn turned_away(&mut self, why: &str, is_wrong: bool) {
        self.failed = is_wrong;
        self.images_failed += 1;
        self.brought = Some(format!("an image was refused by the agent: {why}"));
    }

    /// The node that belongs here was heard: whoever was refused before is not on its line now.
    pub(super) fn heard(&mut self) {
        self.problem = None;
    }

    pub(super) fn score(&mut self, axis: u8, score: Option<u32>) {
        if let Some(place) = self.scores.get_mut(usize::from(axis)) {
            *place = score;
        }
        self.anomalies += u64::from(score.zip(self.threshold).is_some_and(|(score, threshold)| score > threshold));
    }

    /// A session began: what was known of the life before is not true of this one.
    pub(super) fn begun(&mut self, session: u32) {
        self.session = Some(session);
        self.problem = None;
        (self.sensor, self.health, self.crash) = (None, None, None);
        (self.model, self.image) = (None, None);
        self.told = Told::default();
    }

    /// As the hub is told of it.
    pub fn report(&self) -> NodeReport {
        let Told { health, model, image } = self.told;
        NodeReport {
            node: self.node.clone(),
            there: self.there,
            kind: self.kind.clone(),
            firmware: self.firmware.clone(),
            starts: self.starts,
            health,
            model,
            image,
            anomalies: self.anomalies,
            lost: self.lost,
            damaged: self.damaged,
            crash: self.crash.clone(),
            trouble: self.trouble(),
        }
    }

    /// What is wrong, in one sentence.
    pub fn trouble(&self) -> Option<String> {
        let node = &self.node;
        if let Some(problem) = &self.problem {
            return Some(format!("node {node}: {problem}"));
        }
        if self.session.is_some() && !self.there {
            return Some(format!("node {node} is silent"));
        }
        match self.sensor {
            Some("missing") => Some(format!("node {node}: its accelerometer does not answer")),
            Some("stuck") => Some(format!("node {node}: its accelerometer gives the same value over and over")),
            _ => self.brought.as_ref().filter(|_| self.failed).map(|brought| format!("node {node}: {brought}")),
        }
    }
}
