//! What the records of a node become: windows events, raw windows files, the rest status.

use std::io;

use tributary_features::{Event, Value, vibration};
use tributary_wire::link::{Features, RawPart, Record};
use tributary_wire::{EntityKey, EventId, Micros};

use super::raw;
use super::run::Loop;
use crate::serve::{self, Submission};

/// Windows of one chunk of bytes: they share a commit.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) records: Vec<(u32, u32)>,
    pub(super) events: Vec<Event>,
    /// A window came whose unit nobody has told.
    pub(super) unknown: bool,
}

impl Loop {
    pub(super) async fn take(
        &mut self,
        taken: &mut Taken,
        session: u32,
        number: u32,
        wall: Micros,
        record: Record<'_>,
    ) {
        match record {
            Record::Features(features) => {
                let Some(count) = self.count else {
                    // It comes again; until then the node is asked what it is.
                    taken.unknown = true;
                    return self.station.give_back(session, number);
                };
                self.serial.status_mut().score(features.axis, features.score);
                taken.records.push((session, number));
                taken.events.push(self.event(session, number, wall, &features, count));
                return;
            }
            Record::Raw(part) => return self.raw(session, number, &part).await,
            Record::Health(health) => self.serial.status_mut().health(&health),
            Record::Crash(crash) => {
                let mut status = self.serial.status_mut();
                status.crash(&crash);
                tracing::warn!(node = status.node, crash = status.crash, "a sensor node had to start again");
            }
            Record::About(_) | Record::Done { .. } => {}
        }
        self.station.stored(session, number);
    }

    /// The event that a window is: only values that the view knows, since others would have it refused.
    fn event(&self, session: u32, number: u32, time: Micros, features: &Features, count: u32) -> Event {
        let node = &self.serial.config.node;
        let view = self.parts.serving.view();
        let known = |name: &str| view.values().iter().any(|field| field.name == name);
        let values: Vec<(String, Value)> =
            vibration::values(features, count).into_iter().filter(|(name, _)| known(name)).collect();
        let id = format!("{:.40}-{session:08x}-{number}", node);
        let id = EventId::new(&id).unwrap_or_else(|_| unreachable!("a node's name and numbers make an event id: {id}"));
        Event { id, time, entities: vec![("node".into(), EntityKey::Text(node.clone()))], values }
    }

    async fn raw(&mut self, session: u32, number: u32, part: &RawPart<'_>) {
        let assembled = self.raw.part(number, part);
        for number in assembled.given_up {
            self.station.stored(session, number);
        }
        let Some(window) = assembled.whole else { return };
        let folder = self.serial.folder.join("raw");
        let (records, most) = (window.records.clone(), self.serial.config.raw_windows);
        let kept = tokio::task::spawn_blocking(move || raw::keep(&folder, session, &window, most)).await;
        let kept = kept.map_err(io::Error::other).flatten();
        match kept {
            Ok(()) => self.serial.status_mut().raw_windows += 1,
            Err(error) => self.serial.status_mut().last_refusal = Some(format!("a raw window was not kept: {error}")),
        }
        // A full disk must not hold up the windows behind it: the node's memory is smaller still.
        for number in records {
            self.station.stored(session, number);
        }
    }

    pub(super) async fn submit(&mut self, taken: Taken) {
        if taken.events.is_empty() {
            return;
        }
        let submission = Submission {
            source: self.serial.config.node.as_str().into(),
            rules: self.serial.config.rules(),
            events: taken.events,
            progress: None,
            durable: true,
        };
        match self.parts.serving.submit(submission).await {
            Ok(outcomes) => {
                for ((session, number), outcome) in taken.records.into_iter().zip(outcomes) {
                    self.station.stored(session, number);
                    let mut status = self.serial.status_mut();
                    match outcome {
                        serve::Outcome::Accepted { .. } => status.accepted += 1,
                        serve::Outcome::Duplicate { .. } => status.duplicates += 1,
                        serve::Outcome::Refused(refusal) => {
                            status.refused += 1;
                            status.last_refusal = Some(refusal.to_string());
                        }
                    }
                }
            }
            // Nothing of it was kept: the node has it and sends it again.
            Err(error) => {
                self.serial.status_mut().last_refusal = Some(error.to_string());
                for (session, number) in taken.records {
                    self.station.give_back(session, number);
                }
            }
        }
    }
}
