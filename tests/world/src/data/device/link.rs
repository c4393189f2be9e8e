//! A device's connection to its hub.

use std::time::Duration;

use anyhow::{Context, Result};
use edge_agent::link;
use tributary_wire::{AckV1, StreamAck};

use super::super::setup::Breakage;
use super::Device;

impl Device {
    /// Batches that leave now, and when to ask again; `None`: the disk failed, which ends the connection.
    #[allow(clippy::type_complexity)]
    pub fn outgoing(&mut self) -> Result<Option<(Vec<Vec<u8>>, Duration)>> {
        let now = self.clock.now();
        let life = self.life();
        let chosen = link::choose(&life.store, &mut life.outbox, now).ok();
        let Some((batches, wait)) = chosen else {
            self.disconnected();
            return Ok(None);
        };
        for batch in &batches {
            let (incarnation, stream, through) = self.watch.leaves(now, batch).with_context(|| self.id.to_string())?;
            if self.breakage == Some(Breakage::FreedWhenSent) {
                let (scattered, quarantined) = (Vec::new(), Vec::new());
                let taken = StreamAck { stream, incarnation, through, scattered, quarantined, window: 8 };
                self.hear(&AckV1 { streams: vec![taken] })?;
            }
        }
        Ok(Some((batches, wait)))
    }

    /// Takes in a receipt.
    pub fn hear(&mut self, ack: &AckV1) -> Result<()> {
        if !self.is_up() {
            return Ok(());
        }
        let now = self.clock.now();
        self.watch.hears(now, ack).with_context(|| self.id.to_string())?;
        let mut ack = ack.clone();
        if self.breakage == Some(Breakage::IgnoresHold) {
            ack.streams.iter_mut().for_each(|stream| stream.window = stream.window.max(1));
        }
        let life = self.life();
        let freed = life.outbox.acknowledged(now, &ack);
        if link::free(&life.store, &freed).1.is_err() {
            self.disconnected();
        }
        Ok(())
    }

    /// The connection stands.
    pub fn connect(&mut self) {
        self.connected = true;
        self.connected_at = self.clock.now();
        self.life().outbox.connected();
        self.watch.connected();
    }

    /// The connection is gone.
    pub fn disconnected(&mut self) {
        self.connected = false;
        if let Some(life) = &mut self.life {
            life.outbox.disconnected();
        }
    }

    /// How long to wait before the next attempt to connect, after one that failed or after a connection.
    pub fn next_attempt(&mut self, failed: bool) -> Duration {
        let lasted = if failed { Duration::ZERO } else { self.clock.now() - self.connected_at };
        self.backoff.ended(lasted);
        self.backoff.next_wait()
    }
}
