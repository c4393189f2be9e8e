//! All that crosses a link between device and hub: ids, topics and messages, with their byte form.
//!
//! Start at [`topic::Topic`] (who may say what where), then [`Batch`] and [`Ack`] (records up, receipts down),
//! [`Report`] and [`SignedAssignment`] (what runs, what should run), [`FeatureSnapshot`] (fleet-scope features down).
//!
//! A published struct never changes: every message is an enum of versions, and `tests/versions/` holds the exact
//! bytes of each. This crate does no I/O, reads no clock, compresses nothing and checks no signature.
#![no_std]

extern crate alloc;

mod ack;
mod assignment;
mod batch;
mod command;
mod frame;
mod id;
mod report;
mod snapshot;
mod time;
pub mod topic;

pub use ack::{Ack, AckV1, StreamAck};
pub use assignment::{Assignment, AssignmentV1, AssignmentV2, AuditHead, LineAssignment, ReleaseRef, SignedAssignment};
pub use batch::{
    Batch, BatchBody, BatchHeader, BatchHeaderV1, BodyEncoding, ClockState, Column, DropReason, Dropped, Field,
    FieldType, Sensitivity, Stamp,
};
pub use command::{Command, CommandResult, CommandResultV1, CommandV1, MAX_RESULT_BYTES, Order, Outcome};
pub use frame::{DecodeError, MAX_BODY_BYTES, MAX_HEADER_BYTES, MAX_MESSAGE_BYTES};
pub use id::{
    CommandId, DeviceId, EntityKey, EventId, Generation, GroupName, IdError, Incarnation, LineName, Role,
    SequenceNumber, Sha256, SnapshotNumber, StreamName, VersionNumber,
};
pub use report::{Health, LineReport, PackageRef, Report, ReportV1, Resources, TrialReport, UpdaterState};
pub use snapshot::{FeatureSnapshot, FeatureSnapshotV1, SnapshotRow};
pub use time::Micros;

/// The highest version of every message that this build reads. A hub never sends a device anything higher than it reported.
pub const WIRE_VERSION: u8 = 2;
