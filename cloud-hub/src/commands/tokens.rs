//! `token`: what devices enrol with.

use clap::Subcommand;
use serde_json::{Value, json};
use tributary_process::config::HumanDuration;
use tributary_process::outln;

use super::devices::pairs;
use super::{Failure, Remote};

/// Enrolment tokens
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  cloud-hub token create --group canary --label site=lyon --uses 20 --expires 7d
  cloud-hub token create | edge-agent enroll --hub https://hub:8443 --token-file -
  cloud-hub token list
  cloud-hub token revoke k7m2pq9x")]
pub enum Token {
    /// Make a token; its text is printed once and kept nowhere
    Create {
        /// The group that its devices begin in
        #[arg(long)]
        group: Option<String>,
        /// A label that its devices begin with, such as site=lyon
        #[arg(long = "label", value_name = "KEY=VALUE")]
        labels: Vec<String>,
        /// How many devices may use it
        #[arg(long, default_value_t = 1, value_name = "N")]
        uses: u32,
        /// How long it may be used, such as 2h or 7d
        #[arg(long, default_value = "1d", value_name = "TIME")]
        expires: HumanDuration,
    },
    /// List tokens: how often they were used, and until when they may be
    List,
    /// Take a token back; devices that have used it keep their certificates
    Revoke {
        /// Its id: the second of its four parts
        id: String,
    },
}

impl Token {
    pub(super) async fn run(self, remote: &Remote) -> Result<(), Failure> {
        match self {
            Self::Create { group, labels, uses, expires } => {
                let body = json!({
                    "group": group, "labels": pairs(labels)?, "uses": uses, "lifetime": expires.to_string(),
                });
                let made = remote.post("/enrolment-tokens", &body).await?;
                if remote.json() {
                    remote.show(&made);
                } else {
                    // The token alone goes to standard output, so that a script can take it.
                    outln!("{}", made["token"].as_str().unwrap_or_default());
                    let uses = if uses == 1 { "one device".to_owned() } else { format!("{uses} devices") };
                    eprintln!("Good for {uses} and {expires}. Keep it secret; it is not shown again.");
                }
            }
            Self::List => {
                let tokens: Vec<Value> = remote.list("/enrolment-tokens", usize::MAX).await?;
                remote.show_list(
                    &tokens,
                    &[
                        ("id", "id"),
                        ("state", "state"),
                        ("used", "uses_made"),
                        ("of", "uses_allowed"),
                        ("group", "group"),
                        ("expires", "expires"),
                    ],
                );
            }
            Self::Revoke { id } => {
                let revoked = remote.delete(&format!("/enrolment-tokens/{id}")).await?;
                remote.done(&revoked, &format!("token {id} is revoked"));
            }
        }
        Ok(())
    }
}
