//! What a node says.

use serde::{Deserialize, Serialize};

use super::{BlobStep, Holds, NodeName, Numbers};

/// From the node to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Up<'a> {
    /// Who is there. Never changes its form.
    Hello {
        /// Oldest version that the node speaks.
        lowest: u8,
        /// Newest version that the node speaks.
        highest: u8,
        /// The session it is in; 0 after a restart.
        session: u32,
        /// Its name.
        #[serde(borrow)]
        node: NodeName<'a>,
    },
    /// What follows a handshake on version 1.
    V1(#[serde(borrow)] UpV1<'a>),
}

/// Version 1 of what a node says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum UpV1<'a> {
    /// A numbered record, sent until it is acknowledged.
    Record {
        /// The session it belongs to.
        session: u32,
        /// Its number; the first of a session is 1. What a node is it tells with number 0 after every welcome: unnumbered,
        /// ahead of all that waits, because without it amplitudes have no unit. An agent that missed it asks `Who`.
        number: u32,
        /// How far behind it the oldest record lies that may still come: what lies before that is stored or overwritten.
        behind: u32,
        /// When it was true, in microseconds since the node's start.
        uptime: u64,
        /// What it says.
        #[serde(borrow)]
        record: Record<'a>,
    },
    /// The answer to [`super::DownV1::Time`].
    Time {
        /// As asked.
        asked: i64,
        /// The node's clock in microseconds since its start.
        uptime: u64,
    },
    /// How far a blob has come.
    Blob {
        /// Which one.
        blob: u32,
        /// What there is of it.
        step: BlobStep,
    },
    /// What runs of one kind. Not numbered: an agent that cannot read it loses nothing.
    Holds(Holds),
}

/// What a numbered record says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Record<'a> {
    /// What the node is; the first record of a session.
    About(#[serde(borrow)] About<'a>),
    /// One window.
    Features(Features),
    /// A piece of a raw window.
    Raw(#[serde(borrow)] RawPart<'a>),
    /// How the node is.
    Health(Health),
    /// Why it had to start again.
    Crash(#[serde(borrow)] Crash<'a>),
    /// What became of an order.
    Done {
        /// Which one.
        order: u32,
        /// What became of it.
        outcome: Outcome,
    },
}

/// What a node is and how it measures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct About<'a> {
    /// What kind of node: images and models are made for a kind.
    #[serde(borrow)]
    pub kind: NodeName<'a>,
    /// Version of its firmware.
    pub firmware: (u16, u16, u16),
    /// Samples per second.
    pub rate: u32,
    /// Samples of a window.
    pub window: u16,
    /// Samples from one window to the next.
    pub hop: u16,
    /// Axes that are measured.
    pub axes: u8,
    /// Where each band ends, in bins of `rate / window` Hz; the first begins at bin 1.
    pub band_ends: Numbers,
    /// One count of the converter in nanometres per second squared.
    pub count: u32,
    /// The score above which a window is an anomaly; none without a model.
    pub threshold: Option<u32>,
    /// Ticks per second of the clock that [`Health::busiest`] is measured with.
    pub ticks: u32,
    /// Starts since power came.
    pub starts: u32,
}

/// One window of one axis. Amplitudes are in 2⁻⁸ counts, ratios in 2⁻¹⁶, as in `tributary-signal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// Number of the window since the start; its last sample was taken at the record's uptime.
    pub window: u32,
    /// Which axis; the first is 0.
    pub axis: u8,
    /// Arithmetic mean.
    pub mean: i32,
    /// Root mean square of the alternating part.
    pub rms: u32,
    /// Largest deviation from the mean.
    pub peak: u32,
    /// Peak by RMS.
    pub crest: u32,
    /// Kurtosis.
    pub kurtosis: u32,
    /// Passages through the mean.
    pub crossings: u16,
    /// RMS within each band.
    pub bands: Numbers,
    /// How unlike the healthy machine; none without a model.
    pub score: Option<u32>,
    /// In hundredths of a degree Celsius, when there is a sensor and it answers.
    pub temperature: Option<i16>,
}

/// A piece of a raw window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawPart<'a> {
    /// Number of the window.
    pub window: u32,
    /// Which axis.
    pub axis: u8,
    /// Which piece; the first is 0.
    pub part: u8,
    /// How many pieces the window has.
    pub of: u8,
    /// Samples as little-endian `i16`, at most [`super::RAW_SAMPLES`].
    pub samples: &'a [u8],
}

impl RawPart<'_> {
    /// Its samples as numbers.
    pub fn samples(&self) -> impl Iterator<Item = i16> + '_ {
        self.samples.as_chunks::<2>().0.iter().map(|bytes| i16::from_le_bytes(*bytes))
    }
}

/// How the accelerometer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Sensor {
    /// It answers, and its values move.
    #[default]
    Well,
    /// It does not answer.
    Missing,
    /// It answers with the same value over and over: no real sensor is that quiet.
    Stuck,
}

/// How a node is. All counts but one are since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Health {
    /// How the accelerometer is.
    pub sensor: Sensor,
    /// Readings that failed.
    pub sensor_errors: u32,
    /// Samples taken.
    pub samples: u32,
    /// Samples that nobody had time for: those that were taken and had no place to wait, for which a window is begun anew,
    /// and those that were never taken because the timer's interrupt was held up, over which the window goes on.
    pub overrun: u32,
    /// Windows analysed.
    pub windows: u32,
    /// Records overwritten before the agent had them, and records that a restart took, since power came. Those that the
    /// agent had stored without the node hearing of it are counted too.
    pub overwritten: u32,
    /// Frames that were damaged, or not for this node.
    pub refused: u32,
    /// The longest that the analysis of one window of all axes took, in [`About::ticks`].
    pub busiest: u32,
    /// Bytes of stack.
    pub stack: u32,
    /// Of those, bytes never used.
    pub stack_untouched: u32,
}

/// Why a node had to start again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CrashKind {
    /// The program found a broken invariant.
    Panic,
    /// The processor refused an instruction or an address.
    Fault,
    /// Nobody fed the watchdog.
    Watchdog,
}

/// What is known of a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crash<'a> {
    /// Which kind.
    pub kind: CrashKind,
    /// Microseconds from that start to the crash, when known.
    pub uptime: u64,
    /// Source file of a panic, its end if it is long; else empty.
    pub file: &'a str,
    /// Line of a panic, or the address of the instruction.
    pub place: u32,
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was done.
    Done,
    /// A value is outside what the node can do.
    OutOfRange,
    /// This node has no such thing.
    Unsupported,
}
