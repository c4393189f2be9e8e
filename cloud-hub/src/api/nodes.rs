//! Sensor nodes beside devices, as the devices report them.

use serde::{Deserialize, Serialize};
use tributary_wire::NodeReport;
use tributary_wire::link::{Held, Holds, Sensor};
use utoipa::ToSchema;

/// A sensor node on a serial line of a device, by the device's last report.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SensorNode {
    /// Its name.
    pub node: String,
    /// Whether the device heard it lately.
    pub there: bool,
    /// What kind of node it says it is; as all that follows, absent before it was heard.
    pub kind: Option<String>,
    /// Version of its firmware.
    pub firmware: Option<String>,
    /// Starts since its power came.
    pub starts: Option<u32>,
    /// How its accelerometer is: `well`, `missing` or `stuck`.
    pub sensor: Option<String>,
    /// Windows analysed since its start.
    pub windows: Option<u32>,
    /// Readings that failed, since its start.
    pub sensor_errors: Option<u32>,
    /// Samples that nobody had time for, since its start.
    pub overrun: Option<u32>,
    /// Bytes of its stack that were never used.
    pub stack_untouched: Option<u32>,
    /// The model that it runs; version 0 is the one that its firmware was built with.
    pub model: Option<NodeImage>,
    /// The image that it runs.
    pub image: Option<NodeImage>,
    /// Windows over its threshold, since the agent's start.
    pub anomalies: u64,
    /// Records that it overwrote before they could come, since the agent's start.
    pub lost: u64,
    /// Frames of it that were damaged, since the agent's start.
    pub damaged: u64,
    /// Why it had to start again the last time it did.
    pub crash: Option<String>,
    /// What is wrong with it, in words.
    pub trouble: Option<String>,
}

/// What a sensor node runs of one kind.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NodeImage {
    /// Its version.
    pub version: u32,
    /// The lowest rollback index that the node would take.
    pub rollback: u32,
    /// `confirmed`, `trial` or `reverted`.
    pub state: String,
    /// The version that did not pass the node's self-test, when it went back from one.
    pub failed: Option<u32>,
}

impl From<Holds> for NodeImage {
    fn from(Holds { version, rollback, state, .. }: Holds) -> Self {
        let (state, failed) = match state {
            Held::Confirmed => ("confirmed", None),
            Held::Trial => ("trial", None),
            Held::Reverted { version } => ("reverted", Some(version)),
        };
        Self { version, rollback, state: state.to_owned(), failed }
    }
}

impl From<&NodeReport> for SensorNode {
    fn from(report: &NodeReport) -> Self {
        let health = report.health.as_ref();
        let sensor = health.map(|health| match health.sensor {
            Sensor::Well => "well",
            Sensor::Missing => "missing",
            Sensor::Stuck => "stuck",
        });
        Self {
            node: report.node.clone(),
            there: report.there,
            kind: report.kind.clone(),
            firmware: report.firmware.clone(),
            starts: report.starts,
            sensor: sensor.map(str::to_owned),
            windows: health.map(|health| health.windows),
            sensor_errors: health.map(|health| health.sensor_errors),
            overrun: health.map(|health| health.overrun),
            stack_untouched: health.map(|health| health.stack_untouched),
            model: report.model.map(NodeImage::from),
            image: report.image.map(NodeImage::from),
            anomalies: report.anomalies,
            lost: report.lost,
            damaged: report.damaged,
            crash: report.crash.clone(),
            trouble: report.trouble.clone(),
        }
    }
}
