//! `audit`: who changed what, and whether the log is whole.

use std::io::{BufRead as _, BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;
use serde_json::json;
use tributary_process::outln;

use super::show::text;
use super::{Failure, Global, Remote};
use crate::audit::{Claim, Verdict, Verifier, export, verify};
use crate::catalog;

/// The audit log
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  cloud-hub audit list --action rollout
  cloud-hub audit export --output audit.jsonl
  cloud-hub audit verify --head 1234:9f2c…        ask the hub
  cloud-hub audit verify --data-dir hub-data      look at the catalog itself
  cloud-hub audit verify --file audit.jsonl       look at an export

The head that a device remembers stands in `edge-agent status`.")]
pub enum Audit {
    /// List changes, newest first
    List {
        /// Only by this one: hub, nobody, device:ID, token:ID
        #[arg(long)]
        who: Option<String>,
        /// Only this action (rollout.pause), or a kind of thing (rollout)
        #[arg(long)]
        action: Option<String>,
        /// Only about this
        #[arg(long)]
        subject: Option<String>,
        /// Only from then on, such as 2026-01-31T00:00:00Z
        #[arg(long)]
        from: Option<String>,
        /// Only before then
        #[arg(long)]
        to: Option<String>,
        /// How many at most
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show the newest entry's number and hash, to be noted elsewhere
    Head,
    /// Write the log as JSON lines
    Export {
        /// Only entries after this number
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// File to write; standard output when left out
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Find a changed, missing or cut-off entry
    Verify {
        /// What the log must hold, as a device or a person remembers it
        #[arg(long, value_name = "HASH or NUMBER:HASH")]
        head: Option<Claim>,
        /// Look at the catalog in this folder of a hub, without asking the hub
        #[arg(long, value_name = "DIR", conflicts_with = "file")]
        data_dir: Option<PathBuf>,
        /// Look at an export
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// The export begins after this number
        #[arg(long, default_value_t = 0, requires = "file")]
        after: u64,
    },
}

impl Audit {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Verify { head, data_dir: Some(folder), .. } => report(&of_catalog(&folder, head).await?, global.json),
            Self::Verify { head, file: Some(file), after, .. } => report(&of_export(&file, after, head)?, global.json),
            other => other.ask(&Remote::new(global)?).await,
        }
    }

    async fn ask(self, remote: &Remote) -> Result<(), Failure> {
        match self {
            Self::List { who, action, subject, from, to, limit } => {
                let given = [("who", who), ("action", action), ("subject", subject), ("from", from), ("to", to)];
                let pairs = given.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", escape(&value?))));
                let query: Vec<String> = pairs.collect();
                let path = if query.is_empty() { "/audit".to_owned() } else { format!("/audit?{}", query.join("&")) };
                let entries = remote.list(&path, limit).await?;
                remote.show_list(
                    &entries,
                    &[
                        ("number", "number"),
                        ("time", "time"),
                        ("who", "who"),
                        ("action", "action"),
                        ("subject", "subject"),
                    ],
                );
            }
            Self::Head => {
                let head = remote.get("/audit/head").await?;
                remote.done(&head, &format!("{}:{}", text(&head["number"]), text(&head["hash"])));
            }
            Self::Export { after, output } => {
                let path = format!("/audit/export?after={after}");
                match output {
                    None => drop(remote.save(&path, &mut std::io::stdout().lock()).await?),
                    Some(file) => {
                        let failed = || format!("could not write {}", file.display());
                        let mut written = std::fs::File::create(&file).with_context(failed)?;
                        let bytes = remote.save(&path, &mut written).await?;
                        written.sync_all().with_context(failed)?;
                        let sentence = format!("{bytes} bytes are in {}", file.display());
                        remote.done(&json!({"file": file, "bytes": bytes}), &sentence);
                    }
                }
            }
            Self::Verify { head, .. } => {
                let query = head.map(|head| format!("?head={head}")).unwrap_or_default();
                let verdict = remote.get(&format!("/audit/verify{query}")).await?;
                let verdict: Verdict = serde_json::from_value(verdict).context("the hub's answer is no verdict")?;
                report(&verdict, remote.json())?;
            }
        }
        Ok(())
    }
}

/// What stands between `=` and `&` of a query.
fn escape(value: &str) -> String {
    value.replace('%', "%25").replace('&', "%26").replace('+', "%2B").replace('#', "%23").replace('?', "%3F")
}

/// Looks at a hub's catalog, which it only reads: also of a hub that works, or of a copy.
async fn of_catalog(folder: &Path, claim: Option<Claim>) -> anyhow::Result<Verdict> {
    let path = folder.join("catalog.db");
    let unreadable = || format!("could not read the audit log in {}", path.display());
    let mut connection = catalog::open_to_read(&path).await.with_context(unreadable)?;
    verify::stored(&mut connection, claim).await.with_context(unreadable)
}

fn of_export(file: &Path, after: u64, claim: Option<Claim>) -> anyhow::Result<Verdict> {
    let unreadable = || format!("could not read {}", file.display());
    let lines = BufReader::new(std::fs::File::open(file).with_context(unreadable)?).lines();
    let mut verifier = Verifier::new(after, claim);
    for line in lines {
        let fine = match export::read(&line.with_context(unreadable)?) {
            Ok(entry) => verifier.take(&entry),
            Err(error) => {
                verifier.unreadable(error);
                false
            }
        };
        if !fine {
            break;
        }
    }
    Ok(verifier.finish())
}

fn report(verdict: &Verdict, json: bool) -> Result<(), Failure> {
    if json {
        outln!("{:#}", json!(verdict));
    } else if verdict.whole && verdict.first == 0 {
        outln!("the audit log is empty");
    } else if verdict.whole {
        outln!("entries {} to {} are whole; head {}:{}", verdict.first, verdict.last, verdict.last, verdict.head);
    }
    match &verdict.finding {
        None => Ok(()),
        Some(finding) => Err(anyhow::anyhow!("the audit log is not whole: {}", finding.problem).into()),
    }
}

impl Remote {
    /// GET of a body that may be long, written as it comes; its length.
    pub async fn save(&self, path: &str, to: &mut impl Write) -> Result<u64, Failure> {
        let mut download = self.download(path).await?;
        let mut bytes = 0;
        while let Some(chunk) = download.chunk().await? {
            to.write_all(&chunk).context("could not write what the hub sent")?;
            bytes += chunk.len() as u64;
        }
        Ok(bytes)
    }
}
