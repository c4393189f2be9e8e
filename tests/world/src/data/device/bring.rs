//! The source in front of a device, and what it is told.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use edge_agent::serve::{Outcome, Progress, Submission, SubmitError};
use edge_agent::sources::{TimeDomain, TimeRules};
use rand::Rng;
use tributary_features::Event;
use tributary_process::config::HumanDuration;

use super::super::setup::{Breakage, Source};
use super::super::source;
use super::Device;

const SOURCE: &str = "till";

impl Device {
    /// Where the source goes on.
    pub(super) fn position(&mut self) -> Result<Option<usize>> {
        if self.setup.source == Source::Caller {
            return Ok(Some(self.answered));
        }
        // While the disk fails nobody can say.
        let Ok(loaded) = self.life().store.load() else { return Ok(None) };
        let sources = loaded.sources;
        let stored = sources.iter().find(|(name, _)| name == SOURCE).map_or(0, |(_, state)| state.offset as usize);
        let stands = self.first + stored;
        ensure!(stands >= self.answered, "{}: a reader begins at {stands}, {} are answered", self.id, self.answered);
        // Stored, though the answer was that it may not be: whoever reads on from here counts it as accepted.
        let prefix = self.prefix();
        let stored = self.events[self.answered..stands].iter().map(|event| format!("{prefix}{}", event.id));
        self.told.extend(stored);
        self.answered = stands;
        let back = usize::from(self.breakage == Some(Breakage::ReadsTwice) && stands > self.first);
        Ok(Some(stands - back))
    }

    /// The source brings the next events, and all again that were not answered as durable. `false`: no answer.
    pub fn bring(&mut self) -> Result<bool> {
        if !self.is_up() {
            return Ok(false);
        }
        let Some(from) = self.position()? else { return Ok(false) };
        let end = (from + self.chance.random_range(1..10)).min(self.events.len());
        let prefix = match self.breakage {
            Some(Breakage::ReadsTwice) => format!("{}{from}-", self.prefix()),
            _ => self.prefix(),
        };
        let events: Vec<Event> = self.events[from..end].iter().map(|event| source::named(event, &prefix)).collect();
        self.brought.extend(events.iter().map(|event| event.id.as_str().to_owned()));
        let lateness = HumanDuration(Duration::from_micros(self.view.lateness() as u64));
        let reads = self.setup.source == Source::Reader;
        let progress = reads.then(|| Progress {
            of: "a file".into(),
            offset: (end - self.first) as u64,
            malformed: 0,
            finished: end == self.events.len(),
        });
        let submission = Submission {
            source: SOURCE.into(),
            rules: TimeRules { time: TimeDomain::Replay, lateness, ..TimeRules::default() },
            events: events.clone(),
            progress,
            durable: reads || self.chance.random_bool(0.8),
        };
        let outcomes = match self.life().submit(submission)? {
            Ok(outcomes) => outcomes,
            Err(SubmitError::Storage(_)) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let mut is_durable = true;
        for (event, outcome) in events.iter().zip(outcomes) {
            match outcome {
                Outcome::Accepted { durable: true, .. } | Outcome::Duplicate { durable: true, .. } => {
                    self.told.insert(event.id.as_str().to_owned());
                }
                Outcome::Accepted { .. } | Outcome::Duplicate { .. } => is_durable = false,
                Outcome::Refused(refusal) => bail!("{}: {} was refused: {refusal}", self.id, event.id),
            }
        }
        if is_durable {
            self.answered = end;
        }
        Ok(true)
    }
}
