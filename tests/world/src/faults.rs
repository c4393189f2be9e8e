//! What goes wrong, counted.

use std::collections::BTreeMap;
use std::fmt;

use tributary_process::disk::Harm;

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A message was lost.
    MessageLost,
    /// A message arrives before one that left earlier.
    MessageOvertook,
    /// A message arrived twice.
    MessageRepeated,
    /// A message met a way that was cut.
    MessageCut,
    /// A way was cut in both directions for a while.
    Partition,
    /// A way was cut in one direction for a while.
    OneWayCut,
    /// A way became better or worse.
    OtherQuality,
    /// A device lost its power.
    DevicePowerCut,
    /// The hub lost its power.
    HubPowerCut,
    /// A device's disk refused everything for a while.
    DeviceDiskFailed,
    /// One operation of a device's disk failed.
    DeviceDiskHiccup,
    /// A device's disk was full for a while.
    DeviceDiskFull,
    /// The hub's disk refused everything for a while.
    HubDiskFailed,
    /// One operation of the hub's disk failed.
    HubDiskHiccup,
    /// The hub's disk was full for a while.
    HubDiskFull,
    /// A device's wall clock jumped.
    ClockJump,
    /// The hub's wall clock jumped.
    HubClockJump,
    /// A device stopped in good order and began again.
    Restart,
    /// A device's disk was replaced by an empty one.
    NewDisk,
    /// A device's program was killed, and started again.
    Kill,
    /// The hub's program was killed, and started again.
    HubKill,
    /// The hub's catalog was lost, and made again from the lake.
    CatalogLost,
    /// A bit of a file of the lake flipped, until the drive's copy was put back.
    LakeRot,
    /// A device was given another sampling policy.
    OtherSampling,
    /// A bit of a device's state flipped.
    DeviceRot,
    /// A device's state was found broken at its start, and set aside: it began anew.
    StateSetAside,
    /// The hub's disk took seconds for a commit.
    SlowCommit,
    /// A device's disk kept it from what came to it.
    SlowDisk,
    /// A power cut took a write that was not synced.
    Forgotten,
    /// A power cut left some sectors of a write.
    Torn,
    /// A disk took a part of a write.
    ShortWrite,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MessageLost => "messages lost",
            Self::MessageOvertook => "messages that come before earlier ones",
            Self::MessageRepeated => "messages repeated",
            Self::MessageCut => "messages into a cut",
            Self::Partition => "partitions",
            Self::OneWayCut => "cuts in one direction",
            Self::OtherQuality => "changes of a way's quality",
            Self::DevicePowerCut => "power cuts of a device",
            Self::HubPowerCut => "power cuts of the hub",
            Self::DeviceDiskFailed => "failures of a device's disk",
            Self::DeviceDiskHiccup => "single operations of a device's disk that fail",
            Self::DeviceDiskFull => "full disks of a device",
            Self::HubDiskFailed => "failures of the hub's disk",
            Self::HubDiskHiccup => "single operations of the hub's disk that fail",
            Self::HubDiskFull => "full disks of the hub",
            Self::ClockJump => "jumps of a device's wall clock",
            Self::HubClockJump => "jumps of the hub's wall clock",
            Self::Restart => "orderly restarts",
            Self::NewDisk => "disks replaced by empty ones",
            Self::Kill => "kills of a device's program",
            Self::HubKill => "kills of the hub's program",
            Self::CatalogLost => "catalogs lost and made again from the lake",
            Self::LakeRot => "flipped bits in files of the lake",
            Self::OtherSampling => "changes of a sampling policy",
            Self::DeviceRot => "flipped bits in the state of a device",
            Self::StateSetAside => "states found broken and set aside",
            Self::SlowCommit => "commits of the hub that take seconds",
            Self::SlowDisk => "times a device's disk keeps it waiting",
            Self::Forgotten => "writes without a sync that a power cut takes",
            Self::Torn => "writes torn by a power cut",
            Self::ShortWrite => "writes of which a disk takes a part",
        })
    }
}

/// How often each kind happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(BTreeMap<Fault, u64>);

impl Faults {
    /// It happened once.
    pub fn count(&mut self, fault: Fault) {
        *self.0.entry(fault).or_default() += 1;
    }

    /// What a disk did by itself.
    pub fn count_harm(&mut self, harm: Harm) {
        for (fault, times) in
            [(Fault::Forgotten, harm.forgotten), (Fault::Torn, harm.torn), (Fault::ShortWrite, harm.short)]
        {
            if times > 0 {
                *self.0.entry(fault).or_default() += times;
            }
        }
    }

    /// Takes in what happened elsewhere.
    pub fn add(&mut self, other: &Self) {
        for (fault, times) in &other.0 {
            *self.0.entry(*fault).or_default() += times;
        }
    }

    /// Of all kinds together.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// By kind.
    pub fn iter(&self) -> impl Iterator<Item = (Fault, u64)> {
        self.0.iter().map(|(fault, times)| (*fault, *times))
    }
}
