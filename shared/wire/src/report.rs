//! What a device really runs.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::frame::message;
use crate::link;
use crate::{
    AuditHead, Generation, Incarnation, LineName, Micros, Role, SequenceNumber, Sha256, SnapshotNumber, Stamp,
    StreamName, VersionNumber, Withheld,
};

/// Versions of the report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "one is alive at a time, and the newest is the common one")]
pub enum Report {
    /// The first.
    V1(ReportV1),
    /// With what the device knows of the signed repository, and what it cannot run. Sent only to a hub that has sent an
    /// [`AssignmentV3`](crate::AssignmentV3): an older one could not read it.
    V2(ReportV2),
}
message!(Report, "report");

impl Report {
    /// What every version says.
    pub fn base(&self) -> &ReportV1 {
        match self {
            Self::V1(base) | Self::V2(ReportV2 { base, .. }) => base,
        }
    }

    /// The metadata that the device trusts, as far as it says so.
    pub fn metadata(&self) -> Option<MetadataVersions> {
        match self {
            Self::V1(_) => None,
            Self::V2(ReportV2 { metadata, .. }) => *metadata,
        }
    }

    /// The releases that this device was told to run and cannot.
    pub fn unfit(&self) -> &[Unfit] {
        match self {
            Self::V1(_) => &[],
            Self::V2(ReportV2 { unfit, .. }) => unfit,
        }
    }

    /// What this device kept back of its records, as far as it says so.
    pub fn withheld(&self) -> Option<&Withheld> {
        match self {
            Self::V1(_) => None,
            Self::V2(ReportV2 { withheld, .. }) => Some(withheld),
        }
    }

    /// From where on the device holds batches, as far as it says so.
    pub fn held(&self) -> &[Held] {
        match self {
            Self::V1(_) => &[],
            Self::V2(ReportV2 { held, .. }) => held,
        }
    }

    /// The sensor nodes beside this device, as far as it says so.
    pub fn nodes(&self) -> &[NodeReport] {
        match self {
            Self::V1(_) => &[],
            Self::V2(ReportV2 { nodes, .. }) => nodes,
        }
    }

    /// The newest entry of the hub's audit log that the device was told of, as far as it says so.
    pub fn audit(&self) -> Option<AuditHead> {
        match self {
            Self::V1(_) => None,
            Self::V2(ReportV2 { audit, .. }) => *audit,
        }
    }
}

/// A report that also says how the device stands to the signed repository, and what it kept back of its records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReportV2 {
    /// What the first version says.
    pub base: ReportV1,
    /// The newest metadata that this device has verified; none before its first refresh.
    pub metadata: Option<MetadataVersions>,
    /// Releases that it will not download, because it could not run them.
    pub unfit: Vec<Unfit>,
    /// What it kept back of its records.
    pub withheld: Withheld,
    /// Which batches it still holds, one entry per stream: a hub that was restored from a backup learns here what was
    /// acknowledged since.
    pub held: Vec<Held>,
    /// The newest entry of the hub's audit log that an assignment has told it of.
    pub audit: Option<AuditHead>,
    /// Sensor nodes on its serial lines.
    pub nodes: Vec<NodeReport>,
}

/// A sensor node, as the device beside it knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeReport {
    /// Its name.
    pub node: String,
    /// It was heard lately.
    pub there: bool,
    /// What kind of node it says it is; as all that follows, none before it was heard.
    pub kind: Option<String>,
    /// Version of its firmware.
    pub firmware: Option<String>,
    /// Starts since its power came.
    pub starts: Option<u32>,
    /// How it is and what it counts since its start.
    pub health: Option<link::Health>,
    /// The model that it runs; version 0 is the one that its firmware was built with.
    pub model: Option<link::Holds>,
    /// The image that it runs.
    pub image: Option<link::Holds>,
    /// Windows over its threshold, since the agent's start.
    pub anomalies: u64,
    /// Records that it overwrote before they could come.
    pub lost: u64,
    /// Frames of it that were damaged.
    pub damaged: u64,
    /// Why it had to start again the last time it did.
    pub crash: Option<String>,
    /// What is wrong with it, in words.
    pub trouble: Option<String>,
}

/// From where on a device still holds batches of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Which stream.
    pub stream: StreamName,
    /// Everything below this number has its receipt and is gone from the device.
    pub first: SequenceNumber,
}

/// Versions of the top-level metadata of the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MetadataVersions {
    /// Of `root.json`.
    pub root: u64,
    /// Of `timestamp.json`.
    pub timestamp: u64,
    /// Of `snapshot.json`.
    pub snapshot: u64,
    /// Of `targets.json`.
    pub targets: u64,
}

/// A release that a device cannot run, told before anything of it was downloaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfit {
    /// Which line.
    pub line: LineName,
    /// In which role.
    pub role: Role,
    /// Which release.
    pub package: PackageRef,
    /// What it needs and what there is, in words, one entry per lack.
    pub reasons: Vec<String>,
}

/// First message on every connect, then on change and at intervals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReportV1 {
    /// Counts up within an incarnation; the hub ignores one that is not higher than the last.
    pub number: u64,
    /// Which life of the device's state.
    pub incarnation: Incarnation,
    /// When.
    pub stamp: Stamp,
    /// Highest message version this device reads.
    pub reads: u8,
    /// Version of the agent.
    pub agent: String,
    /// Labels that selectors match, such as `site=lyon`.
    pub labels: Vec<(String, String)>,
    /// The newest assignment this device has accepted; 0: none yet.
    pub generation: Generation,
    /// Set when a package is staged and the device waits for the hub's word before it begins the trial.
    pub asks: bool,
    /// One per model line and role.
    pub lines: Vec<LineReport>,
    /// Newest complete snapshot of fleet-scope features held, with the event time it was taken at.
    pub snapshot: Option<(SnapshotNumber, Micros)>,
    /// What is wrong, if anything.
    pub health: Health,
    /// What it uses.
    pub resources: Resources,
}

/// State of one model line and role on a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LineReport {
    /// Which line.
    pub line: LineName,
    /// In which role.
    pub role: Role,
    /// Where its updater stands.
    pub state: UpdaterState,
    /// The package that runs when nothing is on trial.
    pub committed: Option<PackageRef>,
    /// The package to go back to.
    pub previous: Option<PackageRef>,
    /// The package being fetched, staged or tried.
    pub candidate: Option<PackageRef>,
    /// The release that this device tried and undid, with the reason. Stays until a newer generation.
    pub undone: Option<(PackageRef, String)>,
    /// The last error of the updater, in words.
    pub error: Option<String>,
    /// Engine that serves, such as `tract`.
    pub engine: String,
    /// Evidence since the current package began to serve.
    pub trial: TrialReport,
}

/// Where an updater stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdaterState {
    /// Nothing to do.
    Idle,
    /// A package is on its way.
    Fetching,
    /// A package is on disk and checked.
    Staged,
    /// A package serves, but is not trusted yet.
    Trial,
    /// The assigned package serves and is trusted.
    Committed,
    /// A trial failed and was undone.
    RolledBack,
}

/// A package by number and content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageRef {
    /// Version within its line.
    pub version: VersionNumber,
    /// Hash of the package file.
    pub sha256: Sha256,
}

/// What a package did since it began to serve.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct TrialReport {
    /// Predictions made.
    pub predictions: u64,
    /// Of those, how many failed or gave an output outside the manifest's bounds.
    pub errors: u64,
    /// 99th percentile of the decision's latency in microseconds.
    pub latency_p99_us: u64,
    /// Mean of the output.
    pub output_mean: f64,
}

/// What is wrong with a device, in words for people and in numbers for gates.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Health {
    /// Nothing is wrong.
    pub ok: bool,
    /// One sentence per problem.
    pub problems: Vec<String>,
    /// Events refused since start, by reason.
    pub refused: Vec<(String, u64)>,
    /// Records dropped since the state began.
    pub dropped: u64,
}

/// What a device uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Resident memory in bytes.
    pub memory_bytes: u64,
    /// Batches in the outbox, not acknowledged.
    pub outbox_batches: u64,
    /// Their size in bytes.
    pub outbox_bytes: u64,
    /// Events accepted since the state began.
    pub events: u64,
}
