//! placeholder
/// x
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct ReplayConfig {}
/// x
#[derive(Debug, Clone)]
pub struct ReplayStatus {}
