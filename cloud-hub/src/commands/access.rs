//! `access`: API tokens of people and services.

use clap::{Subcommand, ValueEnum};
use serde_json::json;
use tributary_process::outln;

use super::show::text;
use super::{Failure, Remote};

/// API tokens: who may call the web API
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  cloud-hub access create grafana --role viewer --expires 30d
  cloud-hub access list
  cloud-hub access revoke k7m2qpxw4abc

The first token of a hub lies in its data folder: keys/admin.token. Make one for each person
and service, then revoke it. Tokens with which devices enrol are another thing: `token`.")]
pub enum Access {
    /// Make a token; it is shown once
    Create {
        /// What or whom it is for
        name: String,
        /// What it may do
        #[arg(long, value_enum, default_value = "viewer")]
        role: RoleName,
        /// How long it lasts, such as 12h or 30d, or `never`
        #[arg(long, value_name = "TIME", default_value = "90d")]
        expires: String,
    },
    /// List tokens
    List,
    /// Revoke a token: it and its sessions end at once
    Revoke {
        /// Its id
        id: String,
    },
    /// Show who I am to the hub
    Whoami,
}

/// What a token may do; each includes the ones before
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum RoleName {
    /// Looks
    Viewer,
    /// Also runs the loop: labels, training, rollouts, commands to devices
    Operator,
    /// Also decides who may do what
    Admin,
}

impl RoleName {
    fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl Access {
    pub(super) async fn run(self, remote: &Remote) -> Result<(), Failure> {
        match self {
            Self::Create { name, role, expires } => {
                let mut body = json!({"name": name, "role": role.name()});
                match expires.as_str() {
                    "never" => body["never_expires"] = true.into(),
                    time => body["expires_in"] = time.into(),
                }
                let made = remote.post("/tokens", &body).await?;
                // The token stands alone on standard output, so that it can go into a file.
                if !remote.json() {
                    eprintln!("token {} ({name}, {}) is made; it is shown only now:", text(&made["id"]), role.name());
                }
                let token = text(&made["token"]);
                match remote.json() {
                    true => outln!("{made:#}"),
                    false => outln!("{token}"),
                }
            }
            Self::List => {
                let tokens = remote.list("/tokens", usize::MAX).await?;
                remote.show_list(
                    &tokens,
                    &[
                        ("token", "id"),
                        ("name", "name"),
                        ("role", "role"),
                        ("expires", "expires"),
                        ("last used", "last_used"),
                        ("revoked", "revoked"),
                    ],
                );
            }
            Self::Revoke { id } => {
                let revoked = remote.delete(&format!("/tokens/{id}")).await?;
                remote.done(&revoked, &format!("token {id} is revoked"));
            }
            Self::Whoami => remote.show(&remote.get("/session").await?),
        }
        Ok(())
    }
}
