//! Who was here, written down in groups: a thousand devices that come back at once cost a few transactions, not a
//! thousand turns of the one writer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tributary_identity::Serial;
use tributary_process::shutdown::Shutdown;
use tributary_wire::{DeviceId, Micros};

use crate::access::{Caller, Who};
use crate::audit::{self, Change};
use crate::catalog::{Catalog, devices};
use crate::identity::first_use;

/// As long as nobody waits, others may join the group.
const GATHER: Duration = Duration::from_millis(100);
/// Before another attempt when the catalog refused.
const RETRY: Duration = Duration::from_secs(1);

/// What is to be written; clones share it. At most one entry per device: it is bounded by the fleet.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    devices: HashMap<DeviceId, Arrival>,
    tell: Vec<oneshot::Sender<bool>>,
}

#[derive(Debug, Clone)]
struct Arrival {
    at: Micros,
    /// The certificates that it has used for the first time.
    first: Vec<Serial>,
}

impl Seen {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A device is here, perhaps for the first time with this certificate. Nobody waits until it is written.
    pub fn note(&self, device: &DeviceId, now: Micros, first: Option<Serial>) {
        self.waiting().add(device, now, first);
        self.shared.bell.notify_one();
    }

    /// A device is here; waits until that is durable. `false`: the catalog refused.
    pub async fn written(&self, device: &DeviceId, now: Micros) -> bool {
        let (tell, told) = oneshot::channel();
        {
            let mut waiting = self.waiting();
            waiting.add(device, now, None);
            waiting.tell.push(tell);
        }
        self.shared.bell.notify_one();
        told.await.unwrap_or(false)
    }

    /// Writes until the hub stops; what came before that is written too.
    pub async fn run(self, catalog: Catalog, stop: Shutdown) -> anyhow::Result<()> {
        loop {
            let stopping = tokio::select! {
                () = self.shared.bell.notified() => false,
                () = stop.given() => true,
            };
            if !stopping && self.waiting().tell.is_empty() {
                tokio::time::sleep(GATHER).await;
            }
            let Waiting { devices, tell } = std::mem::take(&mut *self.waiting());
            let written = write(&catalog, &devices).await;
            if let Err(error) = &written {
                tracing::error!(error = error as &dyn std::error::Error, "who was here was not written down");
            }
            for tell in tell {
                // Whoever does not wait any more has gone.
                let _ = tell.send(written.is_ok());
            }
            if stopping {
                return Ok(());
            }
            if written.is_err() {
                // Kept for the next attempt. Those who waited were refused and come again by themselves.
                self.waiting().keep(devices);
                tokio::time::sleep(RETRY).await;
                self.shared.bell.notify_one();
            }
        }
    }
}

impl Waiting {
    fn add(&mut self, device: &DeviceId, at: Micros, first: Option<Serial>) {
        let arrival = self.devices.entry(device.clone()).or_insert_with(|| Arrival { at, first: Vec::new() });
        arrival.at = arrival.at.max(at);
        arrival.first.extend(first);
    }

    fn keep(&mut self, older: HashMap<DeviceId, Arrival>) {
        for (device, mut arrival) in older {
            if let Some(newer) = self.devices.remove(&device) {
                arrival.at = arrival.at.max(newer.at);
                arrival.first.extend(newer.first);
            }
            self.devices.insert(device, arrival);
        }
    }
}

async fn write(catalog: &Catalog, devices: &HashMap<DeviceId, Arrival>) -> Result<(), sqlx::Error> {
    if devices.is_empty() {
        return Ok(());
    }
    let mut transaction = catalog.write().await?;
    for (device, Arrival { at, first }) in devices {
        devices::seen(&mut transaction, device, *at).await?;
        for serial in first {
            let superseded = first_use(&mut transaction, device, serial, *at).await?;
            let to = serde_json::json!({ "serial": serial.as_str(), "superseded": superseded });
            let change =
                Change { action: "certificate.use", subject: device.as_str(), from: serde_json::Value::Null, to };
            let caller = Caller { who: Who::Device(device.clone()), from: None, certificate: None };
            audit::record_for(&mut transaction, &caller, change, *at).await?;
        }
    }
    transaction.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_fleet_that_comes_back_at_once_is_written_down_in_groups_before_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&folder.path().join("catalog.db")).await.unwrap();
        let (seen, stop) = (Seen::default(), Shutdown::new());
        let running = tokio::spawn(seen.clone().run(catalog.clone(), stop.clone()));
        let device = |n: i64| DeviceId::new(&format!("edge-{n}")).unwrap();
        let names: Vec<DeviceId> = (0..500).map(device).collect();
        let all = names.iter().map(|name| seen.written(name, Micros(1)));
        assert!(futures_util::future::join_all(all).await.into_iter().all(|written| written));
        for name in &names {
            seen.note(name, Micros(7), None);
        }
        seen.note(&names[0], Micros(5), None);
        stop.give();
        running.await.unwrap().unwrap();
        let known = devices::all(catalog.reader()).await.unwrap();
        assert_eq!(known.len(), 500);
        assert!(known.iter().all(|known| known.first_seen == Micros(1) && known.last_seen == Micros(7)));
        catalog.close().await;
    }
}
