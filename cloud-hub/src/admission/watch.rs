//! What happens to connections after they were let in.

use std::sync::Arc;

use cloud_hub_gateway::Event;
use tokio::sync::mpsc;
use tributary_wire::DeviceId;

use crate::bus::HubEvent;
use crate::catalog::alerts;
use crate::hub::Hub;

/// Events that are looked at together.
const GROUP: usize = 1_024;

/// Passes on who comes and goes; a taken-over connection is an alert, because a copied key looks like that. What a whole
/// fleet does at once is written in groups: the gateway waits while this queue is full.
pub(crate) async fn watch(hub: Arc<Hub>, mut events: mpsc::Receiver<Event>) -> anyhow::Result<()> {
    let mut group = Vec::with_capacity(GROUP);
    while events.recv_many(&mut group, GROUP).await > 0 {
        let mut taken_over = Vec::new();
        for event in group.drain(..) {
            match event {
                Event::Connected(device, _) => hub.bus.publish(HubEvent::Connected(device)),
                Event::Disconnected(device) => hub.bus.publish(HubEvent::Disconnected(device)),
                Event::TakenOver(device) => taken_over.push(device),
            }
        }
        if !taken_over.is_empty()
            && let Err(error) = alert_taken_over(&hub, &taken_over).await
        {
            tracing::error!(?taken_over, error = &error as &dyn std::error::Error, "alerts were not stored");
        }
    }
    Ok(())
}

async fn alert_taken_over(hub: &Hub, devices: &[DeviceId]) -> Result<(), sqlx::Error> {
    let mut transaction = hub.catalog.write().await?;
    for device in devices {
        tracing::warn!(%device, "a second connection of the same device took over");
        let detail = serde_json::json!({ "problem": "two live connections of the same device" });
        let (kind, subject) = ("connection-taken-over", device.as_str());
        let alert = alerts::Raise { kind, subject, severity: "warning", detail };
        alerts::raise(&mut transaction, alert, hub.now()).await?;
    }
    transaction.commit().await
}
