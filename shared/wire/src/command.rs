//! What an operator asks one device to do once, and what became of it.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::frame::message;
use crate::{CommandId, Micros};

/// The largest [`Outcome::Done`] body: a tail of a log, or a compressed bundle.
pub const MAX_RESULT_BYTES: usize = 1024 * 1024;

/// Versions of the command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first.
    V1(CommandV1),
}
message!(Command, "command");

/// Something to do once. It is sent again until its result is known, so a device remembers which ones it has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandV1 {
    /// Which one.
    pub id: CommandId,
    /// A device that hears of it later than this answers [`Outcome::Expired`] and does nothing.
    pub deadline: Micros,
    /// What to do.
    pub order: Order,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Send the last lines of the log.
    Logs {
        /// At most so many.
        lines: u32,
    },
    /// Send a bundle for whoever looks for a fault: status, settings without secrets, metrics, log.
    Diagnostics,
    /// Start the agent's process again.
    Restart,
    /// Make a new key and have it certified.
    RotateKey,
}

impl Order {
    /// The names of all orders, as in settings, commands and the audit log.
    pub const NAMES: [&str; 4] = ["logs", "diagnostics", "restart", "rotate-key"];

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Logs { .. } => "logs",
            Self::Diagnostics => "diagnostics",
            Self::Restart => "restart",
            Self::RotateKey => "rotate-key",
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Versions of the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandResult {
    /// The first.
    V1(CommandResultV1),
}
message!(CommandResult, "command result");

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandResultV1 {
    /// Which one.
    pub id: CommandId,
    /// When it was finished, by the device's clock.
    pub finished: Micros,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was done.
    Done {
        /// Media type of the body, such as `text/plain`; empty without one.
        media: String,
        /// At most [`MAX_RESULT_BYTES`].
        body: Vec<u8>,
    },
    /// It was tried and did not work; why.
    Failed(String),
    /// This device's own settings forbid it.
    Refused(String),
    /// It came after its deadline.
    Expired,
}
