//! Who may connect. Certificates are checked here once devices have them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use cloud_hub_gateway::{Admission, FollowsHub, Peer, Refusal, Refused, Rights};
use tributary_wire::DeviceId;

use crate::catalog::{self, Catalog, devices};
use crate::config::Enrol;
use crate::ingest::HUB_DEVICE;

/// Admits by the catalog.
#[derive(Debug, Clone)]
pub struct ByCatalog {
    catalog: Catalog,
    enrol: Enrol,
}

impl ByCatalog {
    /// Admits by this catalog and policy.
    pub fn new(catalog: Catalog, enrol: Enrol) -> Self {
        Self { catalog, enrol }
    }

    async fn decide(&self, peer: Peer<'_>) -> Result<Rights, Refused> {
        if is_integration(peer.client_id) {
            return Ok(Rights::Client(Arc::new(FollowsHub)));
        }
        let device = DeviceId::new(peer.client_id).map_err(|error| refused(Refusal::ClientId, error.to_string()))?;
        if device.as_str() == HUB_DEVICE {
            return Err(refused(Refusal::ClientId, format!("{HUB_DEVICE:?} is the hub's own name")));
        }
        let unavailable = |error: sqlx::Error| {
            tracing::error!(%device, error = &error as &dyn std::error::Error, "the catalog did not answer an admission");
            refused(Refusal::Unavailable, "the catalog does not answer".to_owned())
        };
        if self.enrol == Enrol::Known
            && !devices::is_known(self.catalog.reader(), &device).await.map_err(unavailable)?
        {
            return Err(refused(Refusal::NotAdmitted, format!("device {device} is not known to this hub")));
        }
        let mut transaction = self.catalog.write().await.map_err(unavailable)?;
        devices::seen(&mut transaction, &device, catalog::now()).await.map_err(unavailable)?;
        transaction.commit().await.map_err(unavailable)?;
        Ok(Rights::Device(device))
    }
}

fn refused(refusal: Refusal, reason: String) -> Refused {
    Refused { refusal, reason }
}

/// Client ids of integrations begin with `app-`; the rest is theirs to choose.
fn is_integration(client_id: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    client_id.starts_with("app-") && client_id.len() <= 63 && client_id.bytes().all(valid)
}

impl Admission for ByCatalog {
    fn admit<'a>(&'a self, peer: Peer<'a>) -> Pin<Box<dyn Future<Output = Result<Rights, Refused>> + Send + 'a>> {
        Box::pin(self.decide(peer))
    }
}
