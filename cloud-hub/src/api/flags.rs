//! Flags for the applications beside the agents.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tributary_wire::DeviceId;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::rollouts::parse_selector;
use super::{Json, Path, Problem, State};
use crate::hub::Hub;
use crate::rollout;
use crate::rollout::flags::{Flag, Flags, Target};

pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(put))
}

/// One flag of one target.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FlagView {
    /// Its name.
    pub key: String,
    /// What it says.
    pub value: String,
    /// The one device that it is for.
    pub device: Option<String>,
    /// Or the labels of the devices that it is for, such as `site=lyon`; empty: all devices.
    pub selector: Option<String>,
    /// When it was set, UTC microseconds.
    pub changed: i64,
}

impl FlagView {
    fn new(flag: &Flag) -> Self {
        let (device, selector) = match &flag.target {
            Target::Device(device) => (Some(device.to_string()), None),
            Target::Labels(selector) => (None, Some(selector.to_string())),
        };
        Self { key: flag.key.clone(), value: flag.value.clone(), device, selector, changed: flag.changed.0 }
    }
}

/// All flags.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FlagList {
    /// By name; of each name the widest target first. A device gets that of the narrowest target that means it.
    pub items: Vec<FlagView>,
}

/// What a flag shall say, and to whom.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FlagRequest {
    /// At most 256 bytes; `null`, or left out: the flag is cleared for this target.
    #[serde(default)]
    pub value: Option<String>,
    /// One device.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub device: Option<DeviceId>,
    /// Or labels that devices must have, such as `site=lyon,gpu=true`; all devices when both are left out.
    #[serde(default)]
    pub selector: Option<String>,
}

/// Flags of all targets.
#[utoipa::path(get, path = "/flags", tag = "flags",
    security(("token" = ["viewer"])),
    responses((status = 200, body = FlagList), (status = "default", body = Problem)))]
async fn list(hub: State) -> Result<Json<FlagList>, Problem> {
    found(&hub).await.map(Json)
}

/// Sets or clears a flag for one target. Devices that it concerns get a newer assignment.
#[utoipa::path(put, path = "/flags/{key}", tag = "flags",
    security(("token" = ["operator"])), params(("key" = String, Path)), request_body = FlagRequest,
    responses((status = 200, body = FlagList), (status = "default", body = Problem)))]
async fn put(hub: State, Path(key): Path<String>, Json(request): Json<FlagRequest>) -> Result<Json<FlagList>, Problem> {
    let target = match (request.device, request.selector) {
        (Some(device), None) => Target::Device(device),
        (None, selector) => Target::Labels(parse_selector(&selector.unwrap_or_default())?),
        (Some(_), Some(_)) => {
            return Err(Problem::unacceptable("a flag is for one device or for a selector, not for both")
                .with("selector", "left out when a device is named"));
        }
    };
    rollout::flag(&hub, &target, &key, request.value.as_deref()).await?;
    found(&hub).await.map(Json)
}

async fn found(hub: &Hub) -> Result<FlagList, Problem> {
    let mut catalog = hub.catalog.reader().acquire().await?;
    let flags = Flags::read(&mut catalog).await?;
    Ok(FlagList { items: flags.all().iter().map(FlagView::new).collect() })
}
