//! One group of events: check, windows, fleet table, inference, decision, one commit, answers.

use std::collections::HashMap;
use std::sync::Arc;

use edge_agent_core::challengers;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tributary_features::{Event, Marks, Row, Value};
use tributary_stats::Prediction;
use tributary_wire::{Micros, Role};

use super::answering::Answering;
use super::pipeline::{Pipeline, PipelineConfig, describe};
use super::sampling;
use super::slot::{Scored, Slot, Slots};
use super::{Outcome, Refusal, Submission, SubmitError};
use crate::state::{Accepted, Answer, Commit, Observation, StoreError};

/// Events that are scored in one call of the engine. Small enough that the first of them does not wait long.
const MICRO_BATCH: usize = 32;

/// Text in one event. With it and the limit on a batch, no batch comes near the largest body that a hub takes.
const MAX_TEXT: usize = 256 << 10;

/// A submission that waits for its answer.
pub(super) struct Waiting {
    pub(super) submission: Submission,
    pub(super) received: u64,
    pub(super) reply: oneshot::Sender<Result<Vec<Outcome>, SubmitError>>,
    pub(super) permit: OwnedSemaphorePermit,
}

impl Waiting {
    pub(super) fn answer(self, result: Result<Vec<Outcome>, SubmitError>) {
        drop(self.permit);
        // The caller may have gone away; what was stored stays stored.
        let _ = self.reply.send(result);
    }
}

/// What is known of an event before the group is committed.
enum Place {
    /// New: its place in the group.
    New(usize),
    /// The same id came earlier in this group.
    Again(usize),
    /// It was stored before.
    Stored(Box<Answer>),
    Refused(Refusal),
}

struct Taken {
    event: Event,
    source: Arc<str>,
    /// Which of the places that challengers share out.
    place: u16,
    features: Vec<f32>,
    marks: Marks,
    begun: u64,
}

impl Pipeline {
    /// Serves a group. On an error everyone was told that nothing is stored, and memory is to be thrown away.
    pub(super) fn serve(&mut self, slots: &Slots, waiting: Vec<Waiting>) -> Result<(), StoreError> {
        if let Some(live) = &mut self.live {
            live.sketches.follow(slots);
        }
        if waiting.is_empty() {
            return self.commit_idle(false);
        }
        let (places, rows) = match self.take(slots, &waiting) {
            Ok(taken) => taken,
            Err(error) => {
                refuse_all(waiting, &error);
                return Err(error);
            }
        };
        let progressed = waiting.iter().any(|waiting| waiting.submission.progress.is_some());
        let outcomes = |places: Vec<Place>, durable: bool| -> Vec<Outcome> {
            places.into_iter().map(|place| outcome(place, &rows, durable)).collect()
        };
        // Whoever does not wait for the disk is answered now, the others after the commit.
        let mut durable = Vec::new();
        for (waiting, places) in waiting.into_iter().zip(places) {
            if waiting.submission.durable {
                durable.push((waiting, places));
            } else {
                waiting.answer(Ok(outcomes(places, false)));
            }
        }
        // Refusals and repetitions alone are counted, but nobody has to wait for a sync to hear of them.
        let nothing_new = rows.is_empty() && !progressed;
        if let Err(error) = if nothing_new { self.commit_idle(false) } else { self.store_group(&rows) } {
            refuse_all(durable.into_iter().map(|(waiting, _)| waiting).collect(), &error);
            return Err(error);
        }
        // Whoever has an answer and asks for the status finds the event counted there.
        self.show(None);
        for (waiting, places) in durable {
            waiting.answer(Ok(outcomes(places, true)));
        }
        let now = self.config.clock.monotonic();
        if let Some(live) = &mut self.live {
            live.windows.after_commit(now);
            self.config.metrics.window_entities.set(live.windows.held().0 as i64);
        }
        Ok(())
    }

    /// Takes all events of a group into memory and decides them.
    #[allow(clippy::type_complexity)]
    fn take(
        &mut self,
        slots: &Slots,
        waiting: &[Waiting],
    ) -> Result<(Vec<Vec<Place>>, Vec<(Accepted, Answer)>), StoreError> {
        let answering = self.serving.answering();
        let mut places = Vec::with_capacity(waiting.len());
        let mut rows = Vec::new();
        let mut ids: HashMap<String, usize> = HashMap::new();
        let mut batch = Vec::new();
        for waiting in waiting {
            let begun = self.config.clock.monotonic();
            let waited = begun.saturating_sub(waiting.received);
            self.config.metrics.wait_seconds.observe(waited as f64 / 1e6);
            let mut own = Vec::with_capacity(waiting.submission.events.len());
            for event in &waiting.submission.events {
                let id = event.id.as_str();
                let place = match ids.get(id) {
                    Some(place) => Place::Again(*place),
                    None => match self.admit(&answering, &waiting.submission, event)? {
                        Ok(taken) => {
                            let place = rows.len() + batch.len();
                            ids.insert(id.to_owned(), place);
                            batch.push(taken);
                            Place::New(place)
                        }
                        Err(place) => place,
                    },
                };
                self.count(&waiting.submission.source, &place);
                own.push(place);
                if batch.len() == MICRO_BATCH {
                    self.decide((slots, &answering), std::mem::take(&mut batch), &mut rows);
                }
            }
            self.note_progress(&waiting.submission);
            places.push(own);
        }
        self.decide((slots, &answering), batch, &mut rows);
        self.move_watermark(self.config.clock.monotonic());
        Ok((places, rows))
    }

    /// Checks an event and takes it into the windows. The order matters: a caller's retry is answered as the first
    /// time, however late it comes.
    fn admit(
        &mut self,
        answering: &Answering,
        submission: &Submission,
        event: &Event,
    ) -> Result<Result<Taken, Place>, StoreError> {
        let Some(live) = &mut self.live else { return Err(StoreError::Closed) };
        let row = match live.windows.view().row(event) {
            Ok(row) => row,
            Err(error) => return Ok(Err(Place::Refused(error.into()))),
        };
        let found =
            event.values.iter().map(|(_, value)| if let Value::Text(text) = value { text.len() } else { 0 }).sum();
        if found > MAX_TEXT {
            return Ok(Err(Place::Refused(Refusal::TooLong { found, limit: MAX_TEXT })));
        }
        if let Some(answer) = self.store.answer(event.id.as_str())? {
            return Ok(Err(Place::Stored(Box::new(answer))));
        }
        let source = live.sources.entry(submission.source.to_string()).or_default();
        let now = Micros(self.config.clock.wall());
        if let Err(error) = submission.rules.check(&submission.source, source.newest, event.time, now) {
            return Ok(Err(Place::Refused(error.into())));
        }
        source.newest = source.newest.max(Some(event.time));
        let begun = self.config.clock.monotonic();
        let place = place(&self.config, answering, &row);
        let mut features = vec![0.0; live.windows.view().features().len()];
        let mut marks = live.windows.observe(live.next, &row, &mut features);
        marks |= self.fleet.fill(&row, &mut features);
        live.next += 1;
        let source = submission.source.clone();
        Ok(Ok(Taken { event: event.clone(), source, place, features, marks, begun }))
    }

    fn count(&mut self, source: &str, place: &Place) {
        let Some(live) = &mut self.live else { return };
        let state = live.sources.entry(source.to_owned()).or_default();
        let metrics = &self.config.metrics;
        match place {
            Place::New(_) => {
                state.accepted += 1;
                metrics.count_accepted(source);
            }
            Place::Again(_) | Place::Stored(_) => {
                state.duplicates += 1;
                metrics.count_duplicate(source);
            }
            Place::Refused(refusal) => {
                state.refused += 1;
                metrics.count_refused(refusal.reason(), 1);
            }
        }
    }

    fn note_progress(&mut self, submission: &Submission) {
        let Some(live) = &mut self.live else { return };
        let state = live.sources.entry(submission.source.to_string()).or_default();
        if let Some(progress) = &submission.progress {
            state.of = progress.of.clone();
            state.offset = progress.offset;
            state.finished = progress.finished;
            state.refused += progress.malformed;
            self.config.metrics.count_refused(super::MALFORMED, progress.malformed);
        }
        let watermark = submission.rules.watermark(state.newest);
        self.touched.insert(submission.source.to_string(), (self.config.clock.monotonic(), watermark));
    }

    /// Scores a micro-batch with every package in place and decides with the primary one, or with the challenger whose
    /// share an event is in.
    fn decide(
        &mut self,
        (slots, answering): (&Slots, &Answering),
        batch: Vec<Taken>,
        rows: &mut Vec<(Accepted, Answer)>,
    ) {
        if batch.is_empty() {
            return;
        }
        let features: Vec<&[f32]> = batch.iter().map(|taken| taken.features.as_slice()).collect();
        let view = self.serving.view();
        let mut scores: Vec<(&Role, &Arc<Slot>, Vec<Scored>)> = Vec::new();
        for (role, slot) in slots.iter().filter(|(_, slot)| slot.package().view.source() == view.source()) {
            let (scored, hits) = slot.score(&features);
            self.config.metrics.cache_hits.inc_by(hits);
            scores.push((role, slot, scored));
        }
        // The primary comes first: its observation is the one that is answered, unless a challenger answers.
        scores.sort_by_key(|(role, ..)| **role != Role::primary());
        let wall = Micros(self.config.clock.wall());
        let policy = self.serving.sampling();
        let with_event = !view.needs_every_event();
        let snapshot = self.fleet.serving().map(|(number, _)| number.0);
        let first = self.live.as_ref().map_or(0, |live| live.next) - batch.len() as u64;
        for (index, taken) in batch.into_iter().enumerate() {
            let latency_us = self.config.clock.monotonic().saturating_sub(taken.begun);
            let mut observations = Vec::with_capacity(scores.len().max(1));
            for (role, slot, scored) in &scores {
                let seen = self.observe(role, slot, &scored[index], &taken, snapshot, latency_us);
                observations.push(seen);
            }
            if scores.first().is_none_or(|(role, ..)| **role != Role::primary()) {
                observations.insert(0, self.without_package(&taken, snapshot, latency_us));
            }
            if let Some((role, package)) = answering.at(taken.place)
                && let Some(own) = scores.iter().position(|(it, slot, _)| *it == role && slot.is(&package))
                // Before it stands the fallback where there is no primary.
                && let own = own + (observations.len() - scores.len())
                && observations[own].degraded.is_none()
            {
                observations[..=own].rotate_right(1);
            }
            let number = first + index as u64;
            let answer = answer(&observations[0], number, wall);
            self.config.metrics.decision_seconds.observe(latency_us as f64 / 1e6);
            self.config.metrics.degraded.inc_by(u64::from(answer.degraded.is_some()));
            let (source, event) = (taken.source.to_string(), taken.event);
            let candidate = sampling::candidate(&event, &observations, slots, with_event);
            let sampler = self.live.as_mut().map(|live| &mut live.sampler);
            let sampled = sampler.map(|sampler| sampler.decide(&policy.policy, wall, &candidate)).unwrap_or_default();
            rows.push((Accepted { number, wall, source, event, observations, sampled }, answer));
        }
    }

    /// One package's word on one event, counted in its statistics and sketches.
    fn observe(
        &mut self,
        role: &Role,
        slot: &Slot,
        scored: &Scored,
        taken: &Taken,
        snapshot: Option<u64>,
        latency_us: u64,
    ) -> Observation {
        let observation = self.judge(role, slot, scored, &taken.features, taken.marks, snapshot, latency_us);
        let raw = scored.as_ref().ok().copied();
        let error = observation.degraded.is_some();
        slot.count(raw, error, latency_us);
        if let Some(live) = &mut self.live {
            let prediction = Prediction {
                time: taken.event.time.0,
                features: &taken.features,
                output: raw,
                decision: observation.decision,
                error,
                latency_us,
            };
            live.sketches.record(role, &prediction);
        }
        observation
    }

    /// Turns a score into an observation: the package's decision, or the declared fallback and why.
    #[allow(clippy::too_many_arguments)]
    fn judge(
        &self,
        role: &Role,
        slot: &Slot,
        scored: &Scored,
        features: &[f32],
        marks: Marks,
        snapshot: Option<u64>,
        latency_us: u64,
    ) -> Observation {
        let manifest = &slot.package().package.manifest;
        let fallback = self.config.fallback;
        let (output, decision, degraded) = match scored {
            Ok(output) if manifest.output.contain(*output) => (*output, manifest.decision.decide(*output), None),
            Ok(output) => {
                let (low, high) = (manifest.output.low, manifest.output.high);
                let why = format!("fallback: output {output} is outside {low} to {high}");
                (fallback.output, fallback.decision, Some(why))
            }
            Err(error) => (fallback.output, fallback.decision, Some(format!("fallback: {error}"))),
        };
        Observation {
            line: manifest.line.to_string(),
            version: manifest.version.0,
            role: role.to_string(),
            snapshot,
            features: features.to_vec(),
            output,
            decision,
            threshold: manifest.decision.threshold,
            latency_us,
            marks: marks.bits(),
            degraded,
        }
    }

    /// The declared fallback, when no package is in place.
    fn without_package(&self, taken: &Taken, snapshot: Option<u64>, latency_us: u64) -> Observation {
        Observation {
            line: self.config.line.to_string(),
            version: 0,
            role: Role::primary().to_string(),
            snapshot,
            features: taken.features.clone(),
            output: self.config.fallback.output,
            decision: self.config.fallback.decision,
            threshold: 0.0,
            latency_us,
            marks: taken.marks.bits(),
            degraded: Some("fallback: no package is in place".into()),
        }
    }

    /// Makes a group durable.
    fn store_group(&mut self, rows: &[(Accepted, Answer)]) -> Result<(), StoreError> {
        let now = self.config.clock.monotonic();
        let mut commit = Commit::default();
        for (accepted, _) in rows {
            let Some(live) = &mut self.live else { return Err(StoreError::Closed) };
            live.open.push(accepted.clone(), now);
            // A group may be many batches long; each keeps its limits, the hub's among them.
            if live.open.is_due(self.config.batch, now) {
                self.close_batch(&mut commit);
            }
        }
        let Some(live) = &mut self.live else { return Err(StoreError::Closed) };
        let changes = live.sketches.changes(self.watermark);
        let sources = live.sources.clone();
        let sources = sources.iter().map(|(name, state)| (name.as_str(), state)).collect();
        let (open_sketches, sketches) = (changes.open, changes.finished);
        let sampler = live.sampler.clone();
        let sampling = Some(sampler.memory()).filter(|_| !rows.is_empty());
        self.commit(&Commit { accepted: rows, sources, open_sketches, sketches, sampling, ..commit })
    }

    /// Scores an event against the windows as they are, and stores nothing.
    pub(super) fn predict(&self, event: &Event) -> Result<Result<Answer, Refusal>, SubmitError> {
        let Some(live) = &self.live else { return Err(SubmitError::Storage("the state is closed".into())) };
        let begun = self.config.clock.monotonic();
        let row = match live.windows.view().row(event) {
            Ok(row) => row,
            Err(error) => return Ok(Err(error.into())),
        };
        let mut features = vec![0.0; live.windows.view().features().len()];
        let mut marks = live.windows.peek(&row, &mut features);
        marks |= self.fleet.fill(&row, &mut features);
        let slots = self.serving.slots();
        let answering = self.serving.answering();
        let place = place(&self.config, &answering, &row);
        let fits = |slot: &&Arc<Slot>| slot.package().view.source() == live.windows.view().source();
        let judge = |role: &Role, slot: &Arc<Slot>| {
            let scored = slot.score(&[&features]).0;
            let latency_us = self.config.clock.monotonic().saturating_sub(begun);
            self.judge(role, slot, &scored[0], &features, marks, None, latency_us)
        };
        let challenger = answering.at(place).and_then(|(role, package)| {
            let slot = slots.get(role).filter(fits).filter(|slot| slot.is(&package))?;
            Some(judge(role, slot)).filter(|observation| observation.degraded.is_none())
        });
        let primary = || slots.primary().filter(fits).map(|slot| judge(&Role::primary(), slot));
        let observation = match challenger.or_else(primary) {
            Some(observation) => observation,
            None => {
                let latency_us = self.config.clock.monotonic().saturating_sub(begun);
                let taken = Taken { event: event.clone(), source: Arc::from(""), place, features, marks, begun };
                self.without_package(&taken, None, latency_us)
            }
        };
        Ok(Ok(answer(&observation, 0, Micros(self.config.clock.wall()))))
    }
}

fn answer(observation: &Observation, number: u64, wall: Micros) -> Answer {
    Answer {
        number,
        wall,
        version: observation.version,
        output: observation.output,
        decision: observation.decision,
        degraded: observation.degraded.clone(),
        marks: observation.marks,
        latency_us: observation.latency_us,
        challenger: (observation.role != Role::primary().as_str()).then(|| observation.role.clone()),
    }
}

/// Where an event stands among the places that challengers share out: by its first entity, in the view's order.
fn place(config: &PipelineConfig, answering: &Answering, row: &Row) -> u16 {
    match row.entities.first() {
        _ if answering.is_empty() => 0,
        Some(entity) => challengers::place_of(&config.line, entity),
        None => challengers::place(&config.line, config.device.as_str().as_bytes()),
    }
}

fn outcome(place: Place, rows: &[(Accepted, Answer)], durable: bool) -> Outcome {
    match place {
        Place::New(place) => Outcome::Accepted { answer: rows[place].1.clone(), durable },
        Place::Again(place) => Outcome::Duplicate { answer: rows[place].1.clone(), durable },
        Place::Stored(answer) => Outcome::Duplicate { answer: *answer, durable: true },
        Place::Refused(refusal) => Outcome::Refused(refusal),
    }
}

fn refuse_all(waiting: Vec<Waiting>, error: &StoreError) {
    let error = SubmitError::Storage(describe(error));
    waiting.into_iter().for_each(|waiting| waiting.answer(Err(error.clone())));
}
