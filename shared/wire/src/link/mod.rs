//! The serial link between a sensor node and the agent beside it: messages, frames, and what both sides decide.
//!
//! A node numbers its records and keeps each until the agent has stored it; the agent answers with what it has. Start
//! at [`Up`] and [`Down`]. [`Deframer`] and [`encode`] turn them into bytes on a line that may lose, change and add
//! bytes at any time. [`Sender`], [`Receiver`] and [`ClockOffset`] are the decisions, without clock and I/O.
//!
//! ```text
//! node                                   agent
//!  │ Hello (every second until answered)   │   who, which versions, which session it is in
//!  │ ────────────────────────────────────► │
//!  │              Welcome (version, session)│   the agent's number for this life of the node
//!  │ ◄──────────────────────────────────── │
//!  │ Record 1, 2, 3 …                      │   stored, then acknowledged
//!  │ ────────────────────────────────────► │
//!  │                        Ack, Time, Order│   Time is asked every few seconds: it is also the sign of life
//!  │ ◄──────────────────────────────────── │
//! ```
//!
//! **Resets.** A node that restarts has no session, says Hello and counts from 1 in a new one. An agent that restarts
//! knows no session, asks `Who`, and the node goes on in the one it has: record names stay the same, so what had been
//! stored without its acknowledgement is recognised.
//!
//! **Versions.** Variants only grow at the end. `Hello`, `Who`, `Welcome` and `Refused` never change; what they agree
//! on decides which variant carries the rest.
//!
//! This module uses no heap.

mod blob;
mod clock;
mod deframe;
mod down;
mod encode;
mod image;
mod numbers;
mod receiver;
mod sender;
mod up;

pub use blob::{BlobKind, BlobProblem, BlobReceiver, BlobStep, Held, Holds, blob_checksum};
pub use clock::ClockOffset;
pub use deframe::{Deframer, LinkError};
pub use down::{Down, DownV1, Order, Refusal};
pub use encode::{TooLong, encode, pack, unpack};
pub use image::{IMAGE_HEAD, IMAGE_SIGNED, ImageHead, WrongImage};
pub use numbers::{MAX_BANDS, NodeName, Numbers, WrongName};
pub use receiver::{Receiver, Reception};
pub use sender::{Sender, Timing};
pub use up::{About, Crash, CrashKind, Features, Health, Outcome, RawPart, Record, Sensor, Up, UpV1};

/// The newest version of what follows the handshake that this build speaks.
pub const LINK_VERSION: u8 = 1;
/// The oldest.
pub const OLDEST_LINK_VERSION: u8 = 1;
/// The largest message. With its checksum it stays under 255 bytes, so that byte stuffing costs exactly one.
pub const MAX_MESSAGE: usize = 250;
/// The largest frame: stuffing, message, checksum, delimiter.
pub const MAX_FRAME: usize = 1 + MAX_MESSAGE + 4 + 1;
/// Records that may be on their way at once, and how far apart two numbers on the line can be.
pub const WINDOW: u32 = 16;
/// The largest record that [`pack`] makes and a frame with the largest numbers around it still holds.
pub const MAX_RECORD: usize = MAX_MESSAGE - 2 - 3 * 5;
/// Samples in one [`RawPart`]: longer frames rarely survive a bad line.
pub const RAW_SAMPLES: usize = 64;
/// Bytes in one part of a blob; only the last part has fewer.
pub const BLOB_PART: usize = 128;

/// The version that both sides speak, when the other one speaks `lowest` to `highest`.
pub fn negotiate(lowest: u8, highest: u8) -> Option<u8> {
    let common = highest.min(LINK_VERSION);
    (common >= lowest.max(OLDEST_LINK_VERSION)).then_some(common)
}
