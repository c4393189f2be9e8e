//! Who may connect. Certificates are checked here once devices have them.

use std::future::Future;
use std::pin::Pin;

use cloud_hub_gateway::Admission;
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

    async fn decide(&self, device: &DeviceId) -> Result<(), String> {
        if device.as_str() == HUB_DEVICE {
            return Err(format!("{HUB_DEVICE:?} is the hub's own name"));
        }
        let unavailable = |error: sqlx::Error| {
            tracing::error!(%device, error = &error as &dyn std::error::Error, "the catalog did not answer an admission");
            "the catalog does not answer".to_owned()
        };
        if self.enrol == Enrol::Known && !devices::is_known(self.catalog.reader(), device).await.map_err(unavailable)? {
            return Err(format!("device {device} is not known to this hub"));
        }
        let mut transaction = self.catalog.write().await.map_err(unavailable)?;
        devices::seen(&mut transaction, device, catalog::now()).await.map_err(unavailable)?;
        transaction.commit().await.map_err(unavailable)
    }
}

impl Admission for ByCatalog {
    fn admit<'a>(&'a self, device: &'a DeviceId) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>> {
        Box::pin(self.decide(device))
    }
}
