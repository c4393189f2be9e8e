//! `flag`: what applications beside the agents are told.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Failure, Remote};

/// Flags for the applications beside the agents
#[derive(Debug, Subcommand)]
#[command(after_help = "\
A device gets the flag of the narrowest target that means it: one device before
labels, more labels before fewer.

Examples:
  cloud-hub flag set new-form on
  cloud-hub flag set new-form off --selector site=lyon
  cloud-hub flag set new-form on --device edge-1
  cloud-hub flag clear new-form --selector site=lyon
  cloud-hub flag list")]
pub enum Flag {
    /// List the flags of all targets
    List,
    /// Set a flag
    Set {
        /// Its name
        key: String,
        /// What it says, at most 256 bytes
        value: String,
        #[command(flatten)]
        target: Target,
    },
    /// Clear a flag for a target
    Clear {
        /// Its name
        key: String,
        #[command(flatten)]
        target: Target,
    },
}

/// Whom a flag is for; all devices when left out
#[derive(Debug, Args)]
pub struct Target {
    /// For one device
    #[arg(long, value_name = "ID", conflicts_with = "selector")]
    device: Option<String>,
    /// For devices with these labels, such as site=lyon,gpu=true
    #[arg(long, value_name = "LABELS")]
    selector: Option<String>,
}

impl Flag {
    pub(super) async fn run(self, remote: &Remote) -> Result<(), Failure> {
        match self {
            Self::List => {
                let flags = remote.get("/flags").await?;
                let items = flags["items"].as_array().cloned().unwrap_or_default();
                let columns = [("flag", "key"), ("value", "value"), ("device", "device"), ("labels", "selector")];
                remote.show_list(&items, &columns);
            }
            Self::Set { key, value, target } => {
                let said = format!("flag {key} is {value:?}");
                put(remote, &key, Some(value), target, &said).await?;
            }
            Self::Clear { key, target } => put(remote, &key, None, target, &format!("flag {key} is cleared")).await?,
        }
        Ok(())
    }
}

async fn put(remote: &Remote, key: &str, value: Option<String>, target: Target, said: &str) -> Result<(), Failure> {
    let Target { device, selector } = target;
    let body: Value = json!({"value": value, "device": device, "selector": selector});
    let flags = remote.put(&format!("/flags/{key}"), &body).await?;
    remote.done(&flags, said);
    Ok(())
}
