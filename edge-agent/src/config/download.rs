//! Whether the settings of downloads make sense.

use tributary_process::http::Endpoint;

use super::InvalidConfig;
use super::hub::{host_and_port, plain_on_loopback};
use crate::download::{DownloadConfig, mirror_address};

pub(super) fn check(config: &DownloadConfig) -> Result<(), InvalidConfig> {
    config.budget.hours()?;
    if let Some(found) = config.hubs.iter().find(|hub| host_and_port(hub).is_none()) {
        return Err(InvalidConfig::Authority { key: "download.hubs", found: found.clone() });
    }
    for found in &config.mirrors {
        if !matches!(mirror_address(found), Some((Endpoint::Tls(_), _))) {
            return Err(InvalidConfig::Mirror { key: "download.mirrors", found: found.clone() });
        }
    }
    let key = "download.insecure_plain_mirrors";
    for found in &config.insecure_plain_mirrors {
        match mirror_address(found) {
            Some((Endpoint::Tcp(authority), _)) => plain_on_loopback(key, found, Some(&authority))?,
            _ => return Err(InvalidConfig::Mirror { key, found: found.clone() }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn what_is_no_address_hour_or_zone_is_named_and_plain_mirrors_stay_on_this_machine() {
        let check = |text: &str| {
            let config: Config = toml::from_str(&format!("[download]\n{text}")).unwrap();
            config.check().map_err(|error| error.to_string())
        };
        check(
            "hubs = ['hub2:8443']\nmirrors = ['https://m.example/copy/']\ninsecure_plain_mirrors = \
             ['http://127.0.0.1:80/x']\n[download.budget]\nhours = ['22:00-06:00']\ntime_zone = 'Europe/Paris'",
        )
        .unwrap();
        for (text, words) in [
            ("hubs = ['hub2']", "download.hubs"),
            ("mirrors = ['http://m.example/']", "download.mirrors"),
            ("mirrors = ['https://m.example/?a']", "download.mirrors"),
            ("insecure_plain_mirrors = ['http://m.example/']", "insecure_plain_mirrors"),
            ("insecure_plain_mirrors = ['https://127.0.0.1/']", "insecure_plain_mirrors"),
            ("budget.hours = ['22']", "22:00-06:00"),
            ("budget.time_zone = 'Nowhere'", "Nowhere"),
            ("patience = '0s'", "download.patience"),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
