//! The part of the hub that keeps the repository fresh.

use std::sync::Arc;

use sqlx::SqliteConnection;
use tributary_process::shutdown::Shutdown;

use super::{ApplyError, apply, sign, store};
use crate::hub::Hub;

/// Signs again what gets old, until the signal. A failure is logged and tried again: half of a life is left for it.
pub async fn run(hub: Arc<Hub>, shutdown: Shutdown) -> anyhow::Result<()> {
    loop {
        if let Err(error) = look(&hub).await {
            tracing::error!(error = format!("{error:#}"), "the repository could not be signed; trying again");
        }
        tokio::select! {
            () = shutdown.given() => return Ok(()),
            () = tokio::time::sleep(hub.config.publish.interval.0) => {}
        }
    }
}

async fn look(hub: &Hub) -> anyhow::Result<()> {
    let mut catalog = hub.catalog.write().await?;
    let signed = sign::bring_up_to_date(&mut catalog, &hub.keys, &hub.config.publish, hub.now()).await?;
    catalog.commit().await?;
    for (role, version) in signed {
        tracing::info!(role, version, "signed again");
    }
    Ok(())
}

/// Signs assignments with the key that the repository announces, from the start of the hub on.
pub async fn announce(catalog: &mut SqliteConnection, keys: &super::Keys) -> Result<(), ApplyError> {
    let Some(targets) = store::newest(&mut *catalog, "targets").await? else { return Ok(()) };
    let announced = apply::announced(&targets.bytes)?;
    if !keys.announce(&announced) {
        tracing::error!(expected = ?announced.ids(), "devices will refuse assignments: this hub holds no announced key");
    }
    Ok(())
}
