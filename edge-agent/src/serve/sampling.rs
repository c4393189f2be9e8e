//! The sampling policy that is in force, and what became of the observations.

use std::sync::{Arc, PoisonError, RwLock};

use edge_agent_core::sampling::{Candidate, InForce, Scored, in_force};
use tributary_features::Event;
use tributary_wire::{SamplingPolicy, Withheld};

use super::slot::Slots;
use super::{Message, Serving};
use crate::state::{Observation, event_bytes, observation_bytes};

/// The device's own policy, and the one that counts.
pub(super) struct Policies {
    own: SamplingPolicy,
    room: u64,
    in_force: RwLock<Arc<InForce>>,
}

impl Policies {
    /// Until the hub says otherwise the device's own policy counts. `room` is the disk for the outbox.
    pub(super) fn new(own: SamplingPolicy, room: u64) -> Self {
        let in_force = RwLock::new(Arc::new(in_force(&own, room, None)));
        Self { own, room, in_force }
    }
}

impl Serving {
    /// Keeps to the hub's policy within the device's own limits, from the next group of events on; `None`: to the
    /// device's own.
    pub fn sample(&self, hub: Option<&SamplingPolicy>) {
        let wanted = in_force(&self.policies.own, self.policies.room, hub);
        let mut known = self.policies.in_force.write().unwrap_or_else(PoisonError::into_inner);
        if **known == wanted {
            return;
        }
        tracing::info!(policy = wanted.policy.number, limited = wanted.limited, "another sampling policy is in force");
        *known = Arc::new(wanted);
        drop(known);
        // An error means the pipeline has stopped; then nothing is sampled anyway.
        let _ = self.queue.send(Message::Look);
    }

    /// The policy that is in force.
    pub fn sampling(&self) -> Arc<InForce> {
        self.policies.in_force.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was kept back from the hub, and what was lost.
    pub fn withheld(&self) -> Withheld {
        let (shown, in_force) = (self.shown(), self.sampling());
        let mut sampling = shown.sampling;
        (sampling.number, sampling.limited) = (in_force.policy.number, in_force.limited);
        Withheld { sampling, dropped: shown.dropped_by, problem: in_force.problem.clone() }
    }
}

/// What the sampler has to know of an event. `with_event` says whether the event shares the fate of its observations.
pub(super) fn candidate<'a>(
    event: &'a Event,
    observations: &[Observation],
    slots: &Slots,
    with_event: bool,
) -> Candidate<'a> {
    let bytes = observations.iter().map(observation_bytes).sum::<usize>();
    let bytes = bytes + if with_event { event_bytes(event) } else { 0 };
    // Where the fallback answered there is no output to look at.
    let answered = observations.first().filter(|seen| seen.degraded.is_none());
    let slot = answered.and_then(|seen| slots.iter().find(|(role, _)| role.as_str() == seen.role));
    let scored = answered.zip(slot).map(|(seen, (_, slot))| {
        let bounds = &slot.package().package.manifest.output;
        Scored {
            version: seen.version,
            output: seen.output,
            bounds: (bounds.low, bounds.high),
            threshold: seen.threshold,
            decision: seen.decision,
        }
    });
    let observations = observations.len() as u64;
    Candidate { id: event.id.as_str(), scored, observations, bytes: bytes as u64, with_event }
}
