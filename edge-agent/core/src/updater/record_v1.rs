//! Records as agents up to 0.1 stored them. Do not edit: postcard knows fields by their order alone.

use serde::{Deserialize, Serialize};
use tributary_wire::{Generation, ReleaseRef};

use super::record::{Candidate, Record, Undone, Wanted};

/// As [`Record`] was.
#[derive(Debug, Serialize, Deserialize)]
pub struct RecordV1 {
    wanted: Option<Wanted>,
    committed: Option<ReleaseRef>,
    previous: Option<ReleaseRef>,
    candidate: Candidate,
    undone: Option<UndoneV1>,
}

#[derive(Debug, Serialize, Deserialize)]
struct UndoneV1 {
    release: ReleaseRef,
    generation: Generation,
    reason: String,
}

impl From<RecordV1> for Record {
    fn from(stored: RecordV1) -> Self {
        let RecordV1 { wanted, committed, previous, candidate, undone } = stored;
        let undone = undone.map(|UndoneV1 { release, generation, reason }| {
            let unfit = Vec::new();
            Undone { release, generation, reason, unfit }
        });
        Self { wanted, committed, previous, candidate, undone, lost: None }
    }
}
