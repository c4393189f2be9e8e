//! What devices say came of their commands: read strictly, kept once.

use sqlx::SqliteConnection;
use tributary_wire::{CommandResult, CommandResultV1, DeviceId, MAX_RESULT_BYTES, Micros, Outcome};

use super::decide::State;
use super::store::{self, Ended};

/// Why a result changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// It does not decode.
    Unreadable,
    /// No command has that id.
    Unknown,
    /// The command is another device's.
    Foreign,
    /// The command has a result, or was cancelled.
    Again,
}

impl Ignored {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Unreadable, Self::Unknown, Self::Foreign, Self::Again];

    /// As in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Unknown => "unknown",
            Self::Foreign => "foreign",
            Self::Again => "again",
        }
    }
}

/// Longest reason that is kept, in characters.
const REASON: usize = 2_000;
/// Longest media type.
const MEDIA: usize = 100;

/// Takes in a message of a device.
pub(super) async fn take(
    catalog: &mut SqliteConnection,
    device: &DeviceId,
    message: &[u8],
    now: Micros,
) -> Result<Result<State, Ignored>, sqlx::Error> {
    let Ok(CommandResult::V1(result)) = CommandResult::decode(message) else { return Ok(Err(Ignored::Unreadable)) };
    let Some(command) = store::by_id(catalog, &result.id).await? else { return Ok(Err(Ignored::Unknown)) };
    if command.device != device.as_str() {
        return Ok(Err(Ignored::Foreign));
    }
    let ended = read(result);
    // That it came too late is news only for one that is still open.
    if !command.state.takes_result() || (command.state, ended.state) == (State::Expired, State::Expired) {
        return Ok(Err(Ignored::Again));
    }
    let state = ended.state;
    store::result(catalog, &command, ended, now).await?;
    Ok(Ok(state))
}

fn read(CommandResultV1 { finished, outcome, .. }: CommandResultV1) -> Ended {
    let end = |state, reason: &str| Ended { state, reason: plain(reason), media: String::new(), body: None, finished };
    match outcome {
        Outcome::Done { body, .. } if body.len() > MAX_RESULT_BYTES => {
            end(State::Failed, &format!("its answer has {} bytes; at most {MAX_RESULT_BYTES} are taken", body.len()))
        }
        Outcome::Done { media, body } => {
            let usable = (1..=MEDIA).contains(&media.len()) && media.bytes().all(|b| (b' '..=b'~').contains(&b));
            let media = if usable { media } else { "application/octet-stream".to_owned() };
            Ended { media, body: Some(body), ..end(State::Done, "") }
        }
        Outcome::Failed(why) => end(State::Failed, &why),
        Outcome::Refused(why) => end(State::Refused, &why),
        Outcome::Expired => end(State::Expired, "it came to the device after its deadline"),
    }
}

/// A device's words are shown to people: within bounds, and without characters that steer terminals.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON).collect()
}
