//! What arrived becomes groups by the limits that ship.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use cloud_hub::config::IngestConfig;
use cloud_hub::ingest::Gathering;
use rand::Rng;
use tributary_process::clock::Clock as _;
use tributary_wire::{DeviceId, Micros};

use super::{Hub, Slow};

/// Messages that are committed together.
pub(super) struct Group {
    pub(super) messages: Vec<(DeviceId, Bytes)>,
    pub(super) received: Micros,
    pub(super) begun: u64,
}

impl Hub {
    /// When it has something to do, if nothing more arrives: to commit a group that closes, or to try a disk that refuses.
    pub fn next(&self) -> Option<Duration> {
        let life = self.life.as_ref().filter(|_| self.in_hand.is_none() && self.late.is_empty())?;
        let next = life.ingest.probes_at().into_iter().chain(self.gathering.closes()).min()?;
        Some(Duration::from_micros(next))
    }

    /// Takes up the group that has closed; how long it takes to commit, for a hub that is slow. What arrives
    /// meanwhile waits. If it dies meanwhile, all of the group may be on its disk or nothing.
    pub fn take_up(&mut self) -> Result<Option<Duration>> {
        let closed = self.gathering.is_closed(self.clock.monotonic());
        let slow = self.slow.filter(|_| self.is_up() && !self.is_holding() && closed);
        let Some(Slow { commit, .. }) = slow else { return Ok(None) };
        let mut group = self.next_group();
        let written = self.chance.random_bool(0.5);
        if written {
            group.begun = group.begun.saturating_sub(commit.as_micros() as u64);
        }
        self.in_hand = Some(group);
        if written {
            self.late = self.work()?;
        }
        Ok(Some(commit))
    }

    /// The group closes at once, as a full one does.
    pub fn close_group(&mut self) {
        let mut config = self.config.clone();
        config.group_idle.0 = Duration::ZERO;
        self.gather(&config);
    }

    /// Gathers what is here anew within these limits.
    pub(super) fn gather(&mut self, config: &IngestConfig) {
        let (now, mut gathering) = (self.clock.monotonic(), Gathering::new(config));
        self.inbox.iter().for_each(|(_, message)| gathering.add(now, message.len() as u64));
        self.gathering = gathering;
    }

    /// As much of what arrived as is one group, once that has closed; the rest is in the next.
    pub(super) fn next_group(&mut self) -> Group {
        let (received, begun) = (Micros(self.clock.wall()), self.clock.monotonic());
        let mut messages = Vec::new();
        if self.gathering.is_closed(begun) {
            let mut taken = Gathering::new(&self.config);
            while !taken.is_full()
                && let Some((device, message)) = self.inbox.pop_front()
            {
                taken.add(begun, message.len() as u64);
                messages.push((device, message));
            }
            self.gather(&self.config.clone());
        }
        Group { messages, received, begun }
    }
}
