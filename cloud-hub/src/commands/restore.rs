//! `restore`: a backup becomes a hub again; and what is decided on such a hub.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::json;
use tributary_process::outln;
use tributary_wire::Micros;

use super::{Failure, Global, Remote};
use crate::backup::{self, RestoreWish, Restored};

/// Make a hub's data folder from a backup, and see what a restored hub waits for
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  cloud-hub restore BACKUP --data new-data --old-data lost-hub-data
  cloud-hub restore BACKUP --data new-data --lake /mnt/backups/lake
  cloud-hub restore status
  cloud-hub restore continue --reason 'the rest of the fleet is in storage'
  cloud-hub restore overrule card-fraud 7 --reason 'its package is lost'
  cloud-hub restore accept edge-12 --reason 'enrolled on Tuesday by Ana'

Never start the old hub again after this: two hubs with the same keys contradict each other."
)]
pub struct Restore {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    make: Make,
}

#[derive(Debug, Args)]
struct Make {
    /// The backup
    #[arg(value_name = "FROM")]
    from: Option<PathBuf>,
    /// Data folder to make: empty, or not there
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A lake that still has files
    #[arg(long, value_name = "DIR")]
    lake: Option<PathBuf>,
    /// What is left of the old hub's data folder: lake, quarantine, packages, snapshots, datasets are taken from it
    #[arg(long, value_name = "DIR")]
    old_data: Option<PathBuf>,
    /// Go on although files of the lake are lost; their rows are given up
    #[arg(long)]
    without_lake_files: bool,
    /// API tokens stay good; else all end, and a new one is made at the first start (keys/admin.token)
    #[arg(long)]
    keep_tokens: bool,
    /// Revocations since the backup: an export of the audit log, or names of devices and tokens, one a line
    #[arg(long, value_name = "FILE")]
    revocations: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show what was found again, what is lost, and what is waited for
    Status,
    /// Let rollouts go on although not enough devices have reported
    Continue {
        /// Why, for the audit log
        #[arg(long)]
        reason: String,
    },
    /// Let devices be moved away from a package that the hub does not know
    Overrule {
        /// Its line
        line: String,
        /// Its version
        version: u32,
        /// Why, for the audit log
        #[arg(long)]
        reason: String,
    },
    /// Take in a certificate that was issued after the backup
    Accept {
        /// Whose
        device: String,
        /// Why, for the audit log
        #[arg(long)]
        reason: String,
    },
}

impl Restore {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let Some(what) = self.what else { return self.make.run(global.json).await };
        let remote = Remote::new(global)?;
        match what {
            What::Status => remote.show(&remote.get("/restore").await?),
            What::Continue { reason } => {
                let done = remote.post("/restore/continue", &json!({ "reason": reason })).await?;
                remote.done(&done, "rollouts go on");
            }
            What::Overrule { line, version, reason } => {
                let path = format!("/restore/packages/{line}/{version}/overrule");
                let done = remote.post(&path, &json!({ "reason": reason })).await?;
                remote.done(&done, &format!("rollouts may move devices away from version {version} of {line}"));
            }
            What::Accept { device, reason } => {
                let path = format!("/restore/devices/{device}/accept");
                let done = remote.post(&path, &json!({ "reason": reason })).await?;
                remote.done(&done, &format!("{device} is let in when it connects again"));
            }
        }
        Ok(())
    }
}

impl Make {
    async fn run(self, as_json: bool) -> Result<(), Failure> {
        let usage = |what: &str| Failure::Usage(what.to_owned());
        let from = self.from.ok_or_else(|| usage("name the backup to restore"))?;
        let data = self.data.ok_or_else(|| usage("name the data folder to make with --data DIR"))?;
        let wish = RestoreWish {
            from,
            data,
            lake: self.lake,
            old_data: self.old_data,
            without_lake_files: self.without_lake_files,
            keep_tokens: self.keep_tokens,
            revocations: self.revocations,
            tell: Arc::new(move |words| {
                if !as_json {
                    eprintln!("{words}");
                }
            }),
        };
        let done = backup::restore(wish).await.map_err(anyhow::Error::new)?;
        if as_json {
            outln!("{:#}", json!(done));
        } else {
            tell(&done);
        }
        Ok(())
    }
}

fn tell(done: &Restored) {
    outln!("{} is a hub as of {}", done.data.display(), Micros(done.made));
    outln!("lake        {} files, {} of them newer than the backup", done.lake_files, done.newer_lake_files);
    if done.lost_lake_files > 0 {
        outln!("lost        {} files of the lake with {} rows", done.lost_lake_files, done.lost_rows);
    }
    outln!(
        "tokens      {} ended{}",
        done.tokens_ended,
        if done.tokens_ended > 0 { "; the first start makes a new one" } else { "" }
    );
    outln!("revoked     {} again", done.revoked);
    outln!("rollouts    {} paused", done.rollouts_paused);
    for path in &done.outside {
        outln!("not here    {path}: bring it back yourself");
    }
    outln!("next        start the hub at the old address, then: cloud-hub restore status");
}
