//! All that crosses a link, between device and hub and between sensor node and device, with its byte form.
//!
//! [`link`] is the serial link to sensor nodes; it needs no heap. Everything else stands behind the default feature
//! `fleet`.
//!
//! Start at [`topic::Topic`] (who may say what where), then [`Batch`] and [`Ack`] (records up, receipts down),
//! [`Report`] and [`SignedAssignment`] (what runs, what should run), [`FeatureSnapshot`] (fleet-scope features down),
//! [`file`] (metadata and packages on streams beside the telemetry).
//!
//! A published struct never changes: every message is an enum of versions, and `tests/versions/` holds the exact
//! bytes of each. This crate does no I/O, reads no clock, compresses nothing and checks no signature.
#![no_std]

#[cfg(feature = "fleet")]
extern crate alloc;

mod frame;
mod time;
pub mod link;
#[cfg(feature = "fleet")]
mod ack;
#[cfg(feature = "fleet")]
mod assignment;
#[cfg(feature = "fleet")]
mod batch;
#[cfg(feature = "fleet")]
mod command;
#[cfg(feature = "fleet")]
pub mod file;
#[cfg(feature = "fleet")]
mod id;
#[cfg(feature = "fleet")]
mod report;
#[cfg(feature = "fleet")]
mod sampling;
#[cfg(feature = "fleet")]
mod snapshot;
#[cfg(feature = "fleet")]
pub mod topic;

#[cfg(feature = "fleet")]
pub use ack::{Ack, AckV1, StreamAck};
#[cfg(feature = "fleet")]
pub use assignment::{
    Assignment, AssignmentV1, AssignmentV2, AssignmentV3, AuditHead, ChallengerShare, LineAssignment, ReleaseRef,
    SignedAssignment,
};
#[cfg(feature = "fleet")]
pub use batch::{
    Batch, BatchBody, BatchHeader, BatchHeaderV1, BodyEncoding, ClockState, Column, DropReason, Dropped, Field,
    FieldType, LossReason, Lost, Sensitivity, Stamp,
};
#[cfg(feature = "fleet")]
pub use command::{Command, CommandResult, CommandResultV1, CommandV1, MAX_RESULT_BYTES, Order, Outcome};
pub use frame::{DecodeError, MAX_BODY_BYTES, MAX_HEADER_BYTES, MAX_MESSAGE_BYTES};
#[cfg(feature = "fleet")]
pub use id::{
    CommandId, DeviceId, EntityKey, EventId, Generation, GroupName, IdError, Incarnation, LineName, Role,
    SequenceNumber, Sha256, SnapshotNumber, StreamName, VersionNumber,
};
#[cfg(feature = "fleet")]
pub use report::{
    Health, Held, LineReport, MetadataVersions, NodeReport, PackageRef, Report, ReportV1, ReportV2, Resources,
    TrialReport, Unfit, UpdaterState,
};
#[cfg(feature = "fleet")]
pub use sampling::{
    DroppedRecords, Rare, SamplingError, SamplingPolicy, SamplingReport, Uncertain, WHOLE_PPM, Withheld,
};
#[cfg(feature = "fleet")]
pub use snapshot::{FeatureSnapshot, FeatureSnapshotV1, SnapshotRow};
pub use time::Micros;

/// The highest version of every message that this build reads. A hub never sends a device anything higher than it reported.
pub const WIRE_VERSION: u8 = 3;
