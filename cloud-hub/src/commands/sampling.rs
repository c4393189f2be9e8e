//! `sampling`: what devices send of their raw observations.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tributary_process::config::{ByteSize, HumanDuration};

use super::{Failure, Remote};

/// What devices send of their raw observations
#[derive(Debug, Subcommand)]
#[command(after_help = "\
A device keeps to the policy with the most labels among those that mean it, and
never beyond its own limits. Every record that is sent carries its probability.

Examples:
  cloud-hub sampling set fleet --random 0.02 --uncertain-band 0.05
  cloud-hub sampling set lyon --selector site=lyon --day-bytes 5MB --keep 2d
  cloud-hub sampling preview lyon --selector site=lyon
  cloud-hub sampling list
  cloud-hub sampling clear lyon")]
pub enum Sampling {
    /// List the policies of all groups; of two that mean a device the first counts
    List,
    /// Show one policy
    Show {
        /// Its name
        name: String,
    },
    /// Set a policy; what is left out takes its default: everything, no limits
    Set(Set),
    /// How many devices a policy would be for
    Preview {
        /// Its name
        name: String,
        /// For devices with these labels, such as site=lyon,gpu=true
        #[arg(long, value_name = "LABELS", default_value = "")]
        selector: String,
    },
    /// Everything that a policy ever was, newest first
    History {
        /// Its name
        name: String,
        /// How many at most
        #[arg(long, default_value_t = 50)]
        most: usize,
    },
    /// Take a policy back
    Clear {
        /// Its name
        name: String,
    },
}

/// A policy and whom it is for
#[derive(Debug, Args)]
pub struct Set {
    /// Its name
    name: String,
    /// For devices with these labels, such as site=lyon,gpu=true; for all when left out
    #[arg(long, value_name = "LABELS", default_value = "")]
    selector: String,
    /// Share of all observations that is sent
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    random: f64,
    /// Outputs so close to the threshold are uncertain
    #[arg(long, value_name = "DISTANCE")]
    uncertain_band: Option<f64>,
    /// Share of uncertain observations that is sent
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, requires = "uncertain_band")]
    uncertain_share: f64,
    /// Kinds that had at most this share of recent observations are rare
    #[arg(long, value_name = "SHARE")]
    rare_at_most: Option<f64>,
    /// Share of rare observations that is sent
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, requires = "rare_at_most")]
    rare_share: f64,
    /// Bytes of raw observations on a UTC day, such as 5MB
    #[arg(long, value_name = "SIZE")]
    day_bytes: Option<ByteSize>,
    /// Raw observations that could not be sent for so long are given up, such as 2d
    #[arg(long, value_name = "TIME")]
    keep: Option<HumanDuration>,
    /// Disk of a device for what is not acknowledged yet, such as 64MiB
    #[arg(long, value_name = "SIZE")]
    outbox: Option<ByteSize>,
}

impl Set {
    fn body(&self) -> Value {
        let uncertain = self.uncertain_band.map(|band| json!({"band": band, "share": self.uncertain_share}));
        let rare = self.rare_at_most.map(|at_most| json!({"at_most": at_most, "share": self.rare_share}));
        let policy = json!({
            "random": self.random,
            "uncertain": uncertain,
            "rare": rare,
            "day_bytes": self.day_bytes.map(|bytes| bytes.0),
            "keep_seconds": self.keep.map(|keep| keep.0.as_secs()),
            "outbox_bytes": self.outbox.map(|bytes| bytes.0),
        });
        json!({"selector": self.selector, "policy": policy})
    }
}

impl Sampling {
    pub(super) async fn run(self, remote: &Remote) -> Result<(), Failure> {
        match self {
            Self::List => {
                let policies = remote.get("/sampling").await?;
                let items = policies["items"].as_array().cloned().unwrap_or_default();
                let columns = [
                    ("policy", "name"),
                    ("change", "number"),
                    ("labels", "selector"),
                    ("random", "policy.random"),
                    ("uncertain", "policy.uncertain.share"),
                    ("rare", "policy.rare.share"),
                    ("bytes a day", "policy.day_bytes"),
                ];
                remote.show_list(&items, &columns);
            }
            Self::Show { name } => remote.show(&remote.get(&format!("/sampling/{name}")).await?),
            Self::Set(set) => {
                let stored = remote.put(&format!("/sampling/{}", set.name), &set.body()).await?;
                let said = format!("sampling policy {} holds as change {}", set.name, stored["number"]);
                remote.done(&stored, &said);
            }
            Self::Preview { name, selector } => {
                remote.show(&remote.get(&format!("/sampling/{name}/preview?selector={}", quoted(&selector))).await?);
            }
            Self::History { name, most } => {
                let changes = remote.list(&format!("/sampling/{name}/history"), most).await?;
                let columns = [
                    ("change", "number"),
                    ("when", "changed"),
                    ("labels", "selector"),
                    ("random", "policy.random"),
                    ("bytes a day", "policy.day_bytes"),
                ];
                remote.show_list(&changes, &columns);
            }
            Self::Clear { name } => {
                let stored = remote.delete(&format!("/sampling/{name}")).await?;
                remote.done(&stored, &format!("sampling policy {name} is taken back"));
            }
        }
        Ok(())
    }
}

/// A value of a query: whatever has a meaning there is escaped.
pub(super) fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
