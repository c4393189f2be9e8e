//! The command line of the conformance suite for clients of The Update Framework.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::Failure;
use crate::tuf::{self, Repository};

/// Arguments of `edge-agent tuf`, named as the suite names them.
#[derive(Debug, Args)]
pub(super) struct Tuf {
    /// Folder of the trusted metadata
    #[arg(long, value_name = "FOLDER", global = true)]
    metadata_dir: Option<PathBuf>,
    /// Where the repository's metadata lies (http)
    #[arg(long, value_name = "URL", global = true)]
    metadata_url: Option<String>,
    /// A target to download. May be repeated
    #[arg(long, value_name = "PATH", global = true)]
    target_name: Vec<String>,
    /// Where the repository's targets lie (http)
    #[arg(long, value_name = "URL", global = true)]
    target_base_url: Option<String>,
    /// Folder for downloaded targets
    #[arg(long, value_name = "FOLDER", global = true)]
    target_dir: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Begin to trust a repository by its root; asks nobody
    Init {
        /// The root that came over a trusted way
        #[arg(value_name = "ROOT")]
        root: PathBuf,
    },
    /// Bring the trusted metadata up to date
    Refresh,
    /// Refresh, then download targets
    Download,
}

pub(super) fn tuf(arguments: &Tuf) -> Result<ExitCode, Failure> {
    let folder = needed(arguments.metadata_dir.clone(), "--metadata-dir")?;
    if let What::Init { root } = &arguments.what {
        tuf::init(&folder, root)?;
        return Ok(ExitCode::SUCCESS);
    }
    let metadata = needed(arguments.metadata_url.clone(), "--metadata-url")?;
    let repository = Repository::new(folder, metadata, arguments.target_base_url.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::from)?;
    match &arguments.what {
        What::Init { .. } | What::Refresh => runtime.block_on(repository.refresh())?,
        What::Download => {
            let targets = needed(arguments.target_dir.clone(), "--target-dir")?;
            runtime.block_on(repository.download(&arguments.target_name, &targets))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn needed<T>(given: Option<T>, name: &str) -> Result<T, Failure> {
    given.ok_or_else(|| Failure::Usage(format!("{name} is needed")))
}
