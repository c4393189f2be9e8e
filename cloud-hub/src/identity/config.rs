//! Settings of the hub's identity.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tributary_process::config::HumanDuration;

const DAY: Duration = Duration::from_secs(86_400);

/// Who the hub is to its devices, and how long it vouches for them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityConfig {
    /// DNS names and addresses under which devices and people reach the hub; its own certificate is good for these.
    pub names: Vec<String>,
    /// Name or address that devices are told; none: whichever they called.
    pub host: Option<String>,
    /// Certificate (PEM) of an authority made elsewhere, instead of the hub's own. Certificates after the first are
    /// believed as well, such as the one that went before.
    pub authority: Option<PathBuf>,
    /// Secret key (PEM, readable by its owner alone) of that authority.
    pub authority_key: Option<PathBuf>,
    /// How long a device's certificate is valid.
    pub device_lifetime: HumanDuration,
    /// How long after it was issued a device renews it; none: after two thirds of its life.
    pub renew_after: Option<HumanDuration>,
    /// How long after its end a certificate may still renew itself.
    pub grace: HumanDuration,
    /// How long the hub's own certificate is valid; it is renewed after two thirds of that.
    pub hub_lifetime: HumanDuration,
    /// Refused enrolments that one address may cause per minute, on average and at once.
    pub refusals_per_minute: u32,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self {
            names: ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec(),
            host: None,
            authority: None,
            authority_key: None,
            device_lifetime: HumanDuration(90 * DAY),
            renew_after: None,
            grace: HumanDuration(30 * DAY),
            hub_lifetime: HumanDuration(90 * DAY),
            refusals_per_minute: 30,
        }
    }
}

impl IdentityConfig {
    /// Refuses settings that contradict each other.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.names.is_empty(), "identity.names is empty: a hub without a name cannot be reached");
        anyhow::ensure!(
            self.authority.is_some() == self.authority_key.is_some(),
            "identity.authority and identity.authority_key belong together: set both or neither"
        );
        let shortest = Duration::from_secs(60);
        for (name, lifetime) in [("device_lifetime", self.device_lifetime), ("hub_lifetime", self.hub_lifetime)] {
            anyhow::ensure!(
                lifetime.0 >= shortest,
                "identity.{name} is {lifetime}; a certificate lives for 1m at least"
            );
        }
        if let Some(renew_after) = self.renew_after {
            anyhow::ensure!(
                renew_after < self.device_lifetime,
                "identity.renew_after is {renew_after}, expected less than identity.device_lifetime, {}",
                self.device_lifetime
            );
        }
        anyhow::ensure!(self.refusals_per_minute > 0, "identity.refusals_per_minute is 0: nobody could enrol");
        Ok(())
    }

    /// The names as certificates hold them.
    pub(super) fn written_names(&self) -> Vec<String> {
        let written = |name: &String| match name.parse::<IpAddr>() {
            Ok(address) => address.to_string(),
            Err(_) => name.to_ascii_lowercase(),
        };
        self.names.iter().map(written).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_contradict_each_other_are_refused_by_name() {
        let check = |change: fn(&mut IdentityConfig)| {
            let mut config = IdentityConfig::default();
            change(&mut config);
            config.check().map_err(|error| error.to_string())
        };
        assert_eq!(check(|_| {}), Ok(()));
        assert!(check(|c| c.names.clear()).unwrap_err().contains("identity.names"));
        assert!(check(|c| c.authority = Some("ca.pem".into())).unwrap_err().contains("authority_key"));
        assert!(check(|c| c.renew_after = Some(c.device_lifetime)).unwrap_err().contains("is 90d, expected less"));
        assert!(check(|c| c.hub_lifetime = HumanDuration(Duration::ZERO)).unwrap_err().contains("hub_lifetime is 0ms"));
    }
}
