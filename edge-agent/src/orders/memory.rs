//! Which commands were begun and done: one file each, so that none is ever done twice, whatever ends the process.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tributary_process::durable;
use tributary_wire::{CommandId, CommandResultV1, CommandV1, Micros, Order, Outcome};

/// Commands that are remembered at most.
const COMMANDS: usize = 256;
/// Answers that are kept at most, in bytes.
const ANSWER_BYTES: usize = 8 << 20;
/// How long a command is remembered after its deadline: the hub's clock may be another one.
const AFTER_DEADLINE: i64 = Micros::DAY;

/// Why nothing can be remembered.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The disk refuses.
    #[error("could not {verb} {}", path.display())]
    Disk {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Too many whose deadline has not passed.
    #[error("{COMMANDS} commands are remembered, and the deadline of none has passed")]
    Full,
}

/// What is remembered of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remembered {
    pub(super) command: CommandV1,
    pub(super) state: State,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    /// It may have been done, or not.
    Begun,
    /// It is answered; `sure`: the hub has the answer, as far as a device can know.
    Answered { result: CommandResultV1, sure: bool },
}

/// What the device remembers.
pub(super) struct Memory {
    folder: PathBuf,
    all: BTreeMap<CommandId, Remembered>,
}

impl Memory {
    pub(super) fn open(folder: PathBuf) -> Result<Self, MemoryError> {
        let disk = |verb, path: &Path| {
            let path = path.to_owned();
            move |source| MemoryError::Disk { verb, path, source }
        };
        std::fs::create_dir_all(&folder).map_err(disk("make the folder", &folder))?;
        let mut all = BTreeMap::new();
        for file in std::fs::read_dir(&folder).map_err(disk("list", &folder))? {
            let path = file.map_err(disk("list", &folder))?.path();
            // A crash leaves temporary files, whose names are no ids.
            let Some(id) = path.file_name().and_then(|name| CommandId::new(name.to_str()?).ok()) else { continue };
            let bytes = std::fs::read(&path).map_err(disk("read", &path))?;
            let remembered = postcard::from_bytes(&bytes).unwrap_or_else(|error| {
                tracing::warn!(command = %id, %error, "what is remembered of a command is damaged; it is not done again");
                damaged(id.clone())
            });
            all.insert(id, remembered);
        }
        Ok(Self { folder, all })
    }

    pub(super) fn get(&self, id: &CommandId) -> Option<&Remembered> {
        self.all.get(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Remembered> {
        self.all.values()
    }

    /// Remembers durably that a command is begun. It must not be done when this fails.
    pub(super) fn begin(&mut self, command: CommandV1, now: Micros) -> Result<(), MemoryError> {
        self.forget(now);
        if self.all.len() >= COMMANDS {
            return Err(MemoryError::Full);
        }
        self.put(Remembered { command, state: State::Begun })
    }

    /// Remembers the answer durably.
    pub(super) fn answer(&mut self, command: CommandV1, result: CommandResultV1) -> Result<(), MemoryError> {
        self.put(Remembered { command, state: State::Answered { result, sure: false } })?;
        self.shrink()
    }

    /// The hub has these answers.
    pub(super) fn sure(&mut self, ids: impl IntoIterator<Item = CommandId>) -> Result<(), MemoryError> {
        for id in ids {
            if let Some(Remembered { command, state: State::Answered { result, sure: false } }) = self.all.get(&id) {
                let state = State::Answered { result: result.clone(), sure: true };
                self.put(Remembered { command: command.clone(), state })?;
            }
        }
        Ok(())
    }

    fn put(&mut self, remembered: Remembered) -> Result<(), MemoryError> {
        let id = remembered.command.id.clone();
        let path = self.folder.join(id.as_str());
        let bytes = postcard::to_stdvec(&remembered).unwrap_or_default();
        let written = durable::write(&path, &bytes);
        written.map_err(|source| MemoryError::Disk { verb: "write", path, source })?;
        self.all.insert(id, remembered);
        Ok(())
    }

    /// Forgets what the hub cannot ask for any more.
    fn forget(&mut self, now: Micros) {
        let old: Vec<CommandId> = self
            .all
            .values()
            .filter(|remembered| remembered.command.deadline.0.saturating_add(AFTER_DEADLINE) < now.0)
            .map(|remembered| remembered.command.id.clone())
            .collect();
        for id in old {
            self.all.remove(&id);
            if let Err(error) = std::fs::remove_file(self.folder.join(id.as_str())) {
                tracing::warn!(command = %id, %error, "a command that is past could not be forgotten");
            }
        }
    }

    /// Gives up the bodies of the oldest answers when they take too much. That they were done stays.
    fn shrink(&mut self) -> Result<(), MemoryError> {
        let size = |remembered: &Remembered| match &remembered.state {
            State::Answered { result: CommandResultV1 { outcome: Outcome::Done { body, .. }, .. }, .. } => body.len(),
            _ => 0,
        };
        let mut bytes: usize = self.all.values().map(size).sum();
        // Ids begin with the time at which they were made.
        let ids: Vec<CommandId> = self.all.keys().cloned().collect();
        for id in ids {
            if bytes <= ANSWER_BYTES {
                break;
            }
            let Some(remembered) = self.all.get(&id).filter(|remembered| size(remembered) > 0) else { continue };
            let mut remembered = remembered.clone();
            bytes -= size(&remembered);
            if let State::Answered { result, .. } = &mut remembered.state {
                result.outcome = Outcome::Failed("it was done, but its answer is not kept any more".to_owned());
            }
            self.put(remembered)?;
        }
        Ok(())
    }
}

fn damaged(id: CommandId) -> Remembered {
    let outcome = Outcome::Failed("what the device remembered of it is damaged".to_owned());
    let result = CommandResultV1 { id: id.clone(), finished: Micros(0), outcome };
    // Kept until a person removes the file: its deadline is not known.
    let command = CommandV1 { id, deadline: Micros(i64::MAX), order: Order::Diagnostics };
    Remembered { command, state: State::Answered { result, sure: false } }
}
