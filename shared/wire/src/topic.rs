//! Topics: parsed into types and printed from types, here and nowhere else.

use core::fmt;

use crate::DeviceId;

/// Prefix of every topic that belongs to one device.
pub const DEVICE_PREFIX: &str = "v1/d/";
/// Prefix of the topics that integrations follow: alerts and rollouts.
pub const HUB_PREFIX: &str = "v1/hub/";

/// A topic of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Whose.
    pub device: DeviceId,
    /// Which.
    pub channel: Channel,
}

/// What is said on a device's topics. Upward ones are published by the device, downward ones by the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Records: [`crate::Batch`].
    Batch,
    /// What runs: [`crate::Report`].
    Report,
    /// Receipts: [`crate::Ack`].
    Ack,
    /// What should run: [`crate::SignedAssignment`].
    Assignment,
    /// Fleet-scope features: [`crate::FeatureSnapshot`].
    Features,
    /// Something to do once: [`crate::Command`].
    Command,
    /// What became of it: [`crate::CommandResult`].
    Result,
}

impl Channel {
    const ALL: [Self; 7] =
        [Self::Batch, Self::Report, Self::Ack, Self::Assignment, Self::Features, Self::Command, Self::Result];

    /// The part of the topic after the device.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Batch => "up/batch",
            Self::Report => "up/report",
            Self::Ack => "down/ack",
            Self::Assignment => "down/assignment",
            Self::Features => "down/features",
            Self::Command => "down/command",
            Self::Result => "up/result",
        }
    }

    /// Whether the device publishes here (else the hub does).
    pub fn is_up(self) -> bool {
        matches!(self, Self::Batch | Self::Report | Self::Result)
    }
}

impl Topic {
    /// Topic of `device` for `channel`.
    pub fn new(device: DeviceId, channel: Channel) -> Self {
        Self { device, channel }
    }

    /// Reads a topic; `None` when it is not one of a device, or a channel nobody knows.
    pub fn parse(topic: &str) -> Option<Self> {
        let (device, suffix) = topic.strip_prefix(DEVICE_PREFIX)?.split_once('/')?;
        let channel = Channel::ALL.into_iter().find(|channel| channel.suffix() == suffix)?;
        Some(Self { device: DeviceId::new(device).ok()?, channel })
    }

    /// The one filter a device subscribes to.
    pub fn down_filter(device: &DeviceId) -> alloc::string::String {
        alloc::format!("{DEVICE_PREFIX}{device}/down/#")
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{DEVICE_PREFIX}{}/{}", self.device, self.channel.suffix())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_topic_is_read_back_as_it_was_printed_and_others_are_refused() {
        let device = DeviceId::new("edge-1").unwrap();
        for channel in Channel::ALL {
            let topic = Topic::new(device.clone(), channel);
            assert_eq!(Topic::parse(&topic.to_string()), Some(topic));
        }
        for wrong in
            ["v1/d/edge-1/up/else", "v1/d/edge-1", "v1/d//up/batch", "v1/d/a/b/up/batch", "v2/d/edge-1/up/batch"]
        {
            assert_eq!(Topic::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Topic::down_filter(&device), "v1/d/edge-1/down/#");
    }
}
