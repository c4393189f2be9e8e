//! The shell: who is there and what came up in, commands out.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cloud_hub_gateway::Upward;
use tokio::sync::broadcast::error::RecvError;
use tributary_process::shutdown::Shutdown;
use tributary_wire::topic::Channel;
use tributary_wire::{Command, CommandId, CommandV1, DeviceId, Micros};

use super::decide::{Due, State, due};
use super::policy::Refusal;
use super::{Incoming, policy, results, store};
use crate::hub::{Hub, HubEvent};

/// Longest time between two looks: clocks may be set.
const LOOK: Duration = Duration::from_secs(60);
/// How often old commands are removed.
const FORGET: i64 = 3600 * Micros::SECOND;
/// After a look that failed.
const RETRY: Duration = Duration::from_secs(1);

/// Sends, expires and removes commands, and keeps results, until the signal.
pub async fn run(hub: Arc<Hub>, incoming: Incoming, shutdown: Shutdown) -> anyhow::Result<()> {
    let mut results = incoming.0;
    let mut events = hub.bus.subscribe();
    let mut driver = Driver { hub, there: HashMap::new(), forgotten: Micros(0) };
    let mut look = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = shutdown.given() => return Ok(()),
            Some(result) = results.recv() => {
                driver.result(result).await;
                continue;
            }
            event = events.recv() => match event {
                // The first report of a connection says that the device listens by now.
                Ok(HubEvent::Report { device, .. }) => driver.came(device),
                Ok(HubEvent::Connected(device)) => {
                    let now = driver.hub.now();
                    driver.there.insert(device, Presence::Connected(now));
                }
                Ok(HubEvent::Disconnected(device)) => {
                    driver.there.remove(&device);
                    continue;
                }
                Ok(_) => continue,
                Err(RecvError::Lagged(_)) => driver.lagged(),
                Err(RecvError::Closed) => return Ok(()),
            },
            () = driver.hub.orders.bell.notified() => {}
            () = tokio::time::sleep_until(look) => {}
        }
        look = tokio::time::Instant::now()
            + driver.look().await.unwrap_or_else(|error| {
                tracing::error!(error = format!("{error:#}"), "commands could not be looked at; trying again");
                RETRY
            });
    }
}

struct Driver {
    hub: Arc<Hub>,
    there: HashMap<DeviceId, Presence>,
    forgotten: Micros,
}

/// How far a device has come since it connected.
#[derive(Debug, Clone, Copy)]
enum Presence {
    /// It is connected since then, and may not have subscribed yet.
    Connected(Micros),
    /// It listens since then.
    Listens(Micros),
}

/// A device that is connected for so long has subscribed, even if its report has overtaken the news of its coming.
const SUBSCRIBES: i64 = 2 * Micros::SECOND;

impl Driver {
    fn came(&mut self, device: DeviceId) {
        let now = self.hub.now();
        let presence = self.there.entry(device).or_insert(Presence::Listens(now));
        if let Presence::Connected(_) = presence {
            *presence = Presence::Listens(now);
        }
    }

    /// News was missed: who is connected counts as having come now, so that everything is sent once more.
    fn lagged(&mut self) {
        let now = self.hub.now();
        let connected = self.hub.connections.connected().into_iter();
        self.there = connected.map(|device| (device, Presence::Listens(now))).collect();
    }

    /// Since when a device listens; or when to look again whether it does.
    fn listens(&mut self, device: &DeviceId, now: Micros) -> Result<Option<Micros>, Micros> {
        if !self.hub.is_connected(device) {
            return Ok(None);
        }
        match self.there.get_mut(device) {
            None => Ok(None),
            Some(Presence::Connected(since)) if now.0 - since.0 < SUBSCRIBES => Err(Micros(since.0 + SUBSCRIBES)),
            Some(presence) => {
                let (Presence::Connected(since) | Presence::Listens(since)) = *presence;
                *presence = Presence::Listens(since);
                Ok(Some(since))
            }
        }
    }

    /// Whether the rules still allow it where the device is now.
    async fn allows(&self, device: &DeviceId, command: &store::Command) -> anyhow::Result<Result<(), Refusal>> {
        let known = store::device(&mut *self.hub.catalog.reader().acquire().await?, device).await?;
        let place = known.map(|known| known.place).unwrap_or_default();
        Ok(policy::allows(&self.hub.config.commands.rules, device, &place, &command.order()?))
    }

    /// Looks at every open command; when to look again.
    async fn look(&mut self) -> anyhow::Result<Duration> {
        let (now, again) = (self.hub.now(), self.hub.config.commands.again.0.as_micros() as i64);
        let open = store::open(&mut *self.hub.catalog.reader().acquire().await?).await?;
        let mut wake = Micros(now.0 + LOOK.as_micros() as i64);
        let (mut sent, mut expired, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for command in open {
            let device = command.device()?;
            let since = self.listens(&device, now).unwrap_or_else(|again| {
                wake = wake.min(again);
                None
            });
            match due(Micros(command.deadline), command.sent.map(Micros), since, again, now) {
                Due::Wait(until) => wake = wake.min(until),
                Due::Expire => expired.push(command),
                Due::Send => {
                    // It may have come to another group, or under other rules, since somebody asked.
                    if let Err(refusal) = self.allows(&device, &command).await? {
                        match command.state {
                            State::Queued => refused.push((command, refusal.to_string())),
                            // It may have been done: its result counts until the deadline, but it is not sent again.
                            _ => wake = wake.min(Micros(command.deadline)),
                        }
                        continue;
                    }
                    let id = CommandId::new(&command.id)?;
                    let message = CommandV1 { id, deadline: Micros(command.deadline), order: command.order()? };
                    let bytes = Command::V1(message).encode();
                    match self.hub.connections.send(&device, Channel::Command, bytes) {
                        Ok(()) => {
                            tracing::info!(%device, command = command.id, order = command.name, "command sent");
                            sent.push(command.id);
                        }
                        Err(error) => {
                            tracing::info!(%device, command = command.id, %error, "command waits");
                        }
                    }
                    wake = wake.min(Micros(now.0 + again));
                }
            }
        }
        let forget = now.0 - self.forgotten.0 >= FORGET;
        if !sent.is_empty() || !expired.is_empty() || !refused.is_empty() || forget {
            let mut catalog = self.hub.catalog.write().await?;
            for id in &sent {
                store::sent(&mut catalog, id, now).await?;
            }
            for command in &expired {
                tracing::info!(device = command.device, command = command.id, order = command.name, "command expired");
                store::expire(&mut catalog, command, now).await?;
            }
            for (command, reason) in &refused {
                tracing::warn!(device = command.device, command = command.id, reason, "command not sent");
                store::refuse(&mut catalog, command, reason, now).await?;
            }
            if forget {
                let before = Micros(now.0.saturating_sub(self.hub.config.commands.keep.0.as_micros() as i64));
                store::forget(&mut catalog, before, now).await?;
                self.forgotten = now;
            }
            catalog.commit().await?;
            self.hub.orders.counters.sent.fetch_add(sent.len() as u64, Ordering::Relaxed);
        }
        Ok(Duration::from_micros((wake.0 - now.0).max(0) as u64))
    }

    async fn result(&self, Upward { device, payload, .. }: Upward) {
        let counters = &self.hub.orders.counters;
        let stored = async {
            let mut catalog = self.hub.catalog.write().await?;
            let taken = results::take(&mut catalog, &device, &payload, self.hub.now()).await?;
            catalog.commit().await?;
            Ok::<_, sqlx::Error>(taken)
        };
        match stored.await {
            Ok(Ok(state)) => {
                counters.results.fetch_add(1, Ordering::Relaxed);
                tracing::info!(%device, state = state.name(), "a command has a result");
            }
            Ok(Err(ignored)) => {
                counters.ignored[ignored as usize].fetch_add(1, Ordering::Relaxed);
                tracing::info!(%device, reason = ignored.name(), "a command's result changes nothing");
            }
            // The device is asked again, and answers again.
            Err(error) => tracing::error!(%device, error = &error as &dyn std::error::Error, "a result was not stored"),
        }
    }
}
