//! How this agent reaches its hub: as an enrolled device, without encryption on this machine, or not at all.

use std::sync::Arc;

use tributary_process::http::Client;

use super::BuildError;
use crate::config::Config;
use crate::identity::{Folder, Identity, Time, Web};
use crate::link::Way;
use crate::words::in_words;

const HOW: &str = "enrol it with `edge-agent enroll --hub https://HUB:8443 --token-file FILE`, \
                   then start the agent again";

/// What the parts of the agent get to reach the hub.
#[derive(Clone)]
pub(super) struct HubAccess {
    /// An enrolled device's.
    pub(super) identity: Option<Arc<Identity>>,
    /// For MQTT.
    pub(super) way: Way,
    /// For releases.
    pub(super) web: Web,
    /// The earliest that it can be.
    pub(super) time: Time,
    /// Why there is no identity, and what would change that.
    pub(super) why: Option<String>,
    /// What is wrong with the identity that is there.
    pub(super) problem: Option<String>,
}

impl HubAccess {
    /// Reads the identity. An agent serves without one: whatever is wrong with it is said, and records wait.
    pub(super) fn open(config: &mut Config) -> Result<Self, BuildError> {
        let folder = Folder::of(&config.state_dir);
        let time = Time::open(folder.clone());
        let mut problem = None;
        let (identity, why) = match Identity::open(folder.clone(), &config.hub, time.clone()) {
            Ok(Some(identity)) => (Some(identity), None),
            Ok(None) => (None, Some(format!("this device is not enrolled: {HOW}"))),
            Err(error) => {
                let why = format!("the identity in {} cannot be used: {}", folder.path().display(), in_words(&error));
                tracing::error!("{why}");
                problem = Some(why.clone());
                (None, Some(format!("{why}; {HOW} (with --again)")))
            }
        };
        if let Some(identity) = &identity {
            let own = identity.current().device.clone();
            if config.device != own && config.device != Config::default().device {
                tracing::warn!(certificate = %own, settings = %config.device, "the name in the certificate counts");
            }
            config.device = own;
        }
        let plain = config.hub.insecure_plain_http.as_deref().map(str::parse).transpose().map_err(BuildError::Hub)?;
        let web = match (plain, &identity) {
            (Some(endpoint), _) => Web::Plain(Client::new(endpoint)),
            (None, Some(identity)) => Web::Secure(identity.clone()),
            (None, None) => Web::Nowhere,
        };
        let way = match (&config.hub.insecure_plain_mqtt, &identity) {
            (Some(address), _) => Way::Plain(address.clone()),
            (None, Some(identity)) => Way::Secure(identity.clone()),
            (None, None) => Way::None { why: why.clone().unwrap_or_default() },
        };
        // Whoever works without encryption on purpose is not told to enrol.
        let why = why.filter(|_| matches!(way, Way::None { .. }));
        Ok(Self { identity, way, web, time, why, problem })
    }

    /// The root of trust, as enrolment brought it.
    pub(super) fn root(&self) -> Option<Vec<u8>> {
        let root = self.identity.as_ref()?.current().root.clone()?;
        Some(root.into_bytes())
    }
}
