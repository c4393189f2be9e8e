//! What a device may fetch: the releases that it is assigned or was assigned, and nothing else.

use sqlx::SqliteExecutor;
use tributary_wire::{DeviceId, Sha256};

/// Whether a device is or was assigned a release with this package.
pub async fn has_package(
    catalog: impl SqliteExecutor<'_>,
    device: &DeviceId,
    sha256: &Sha256,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (select 1 from wishes where device = $1 and sha256 = $2)
             or exists (select 1 from rollout_devices d join rollouts r on r.id = d.rollout
                        where d.device = $1 and r.sha256 = $2)",
    )
    .bind(device.as_str())
    .bind(sha256.to_string())
    .fetch_one(catalog)
    .await
}
