//! Files of the repository on QUIC streams beside the telemetry.
//!
//! The device opens a bidirectional stream on the connection that carries MQTT (which has the first stream), sends one
//! [`FileRequest`] and ends its direction. The hub answers with one [`FileAnswer`] and, if it is
//! [`FileAnswer::Found`], the bytes from `start` to the end of the file, at a lower priority than MQTT. Both messages
//! stand behind their length, two bytes, little endian. A device that loses the connection asks again from where it is.

use alloc::string::String;

use serde::{Deserialize, Serialize};

use crate::frame::message;

/// The longest message of this exchange in its byte form, without the two bytes of its length.
pub const MAX_FILE_MESSAGE_BYTES: usize = 1_024;

/// What a device asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileRequest {
    /// The first version.
    V1 {
        /// Path in the repository, such as `metadata/timestamp.json`; the same as over HTTPS.
        path: String,
        /// From which byte on.
        start: u64,
    },
}
message!(FileRequest, "file request");

/// What the hub says before the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileAnswer {
    /// The bytes follow.
    Found {
        /// Length of the whole file.
        length: u64,
        /// The first byte that follows: as asked, or 0 when the file is shorter than that.
        start: u64,
    },
    /// There is no such file for this device.
    NotFound,
    /// The hub does not answer now; in words, why.
    Refused(String),
}
message!(FileAnswer, "file answer");
