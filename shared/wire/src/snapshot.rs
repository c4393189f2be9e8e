//! Fleet-scope features on their way down.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::frame::message;
use crate::{EntityKey, Micros, SnapshotNumber};

/// Versions of the snapshot message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FeatureSnapshot {
    /// The first.
    V1(FeatureSnapshotV1),
}
message!(FeatureSnapshot, "feature snapshot");

/// One part of a numbered snapshot. A device uses a snapshot once it holds all its parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureSnapshotV1 {
    /// Name of the feature view.
    pub view: String,
    /// Version of the feature view.
    pub view_version: u32,
    /// Number of the snapshot within the view.
    pub number: SnapshotNumber,
    /// Event time up to which the hub had looked.
    pub taken: Micros,
    /// How long after `taken`, in event time, the values may be served without a mark. Microseconds.
    pub lifetime: i64,
    /// This part, from 0.
    pub part: u16,
    /// How many parts there are.
    pub parts: u16,
    /// Entity whose values these are, such as `terminal_id`.
    pub entity: String,
    /// Names of the features, in the order of the values.
    pub features: Vec<String>,
    /// One per entity that has values.
    pub rows: Vec<SnapshotRow>,
}

/// Values of one entity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotRow {
    /// Which entity.
    pub key: EntityKey,
    /// In the order of [`FeatureSnapshotV1::features`].
    pub values: Vec<f32>,
}
