//! `edge-agent tuf`: the chain by itself, against any repository of The Update Framework, with the command line that the
//! public client conformance suite drives. It shares everything with updates but where files come from and go to.

mod folder;
mod http;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tributary_process::clock::{Clock, SystemClock};
use tributary_release::chain::{Chain, ChainLimits};
use tributary_wire::Micros;

use folder::{FolderFiles, file_name};
use http::HttpSource;

const ROOT: &str = "root.json";
/// The suite's artifacts are small; a repository of large ones is for updates, which stream.
const MAX_TARGET_BYTES: u64 = 64 << 20;

/// Begins to trust a repository by its root; asks nobody.
pub fn init(folder: &Path, root: &Path) -> Result<()> {
    let bytes = std::fs::read(root).with_context(|| format!("trusted root {}", root.display()))?;
    std::fs::create_dir_all(folder).with_context(|| format!("metadata folder {}", folder.display()))?;
    let target = folder.join(ROOT);
    tributary_process::durable::write(&target, &bytes).with_context(|| format!("write {}", target.display()))
}

/// A repository by its addresses, and the folder of what is trusted of it.
#[derive(Debug)]
pub struct Repository {
    folder: PathBuf,
    metadata: String,
    targets: Option<String>,
}

impl Repository {
    /// Metadata lies below the one address, targets below the other.
    pub fn new(folder: PathBuf, metadata: String, targets: Option<String>) -> Self {
        Self { folder, metadata, targets }
    }

    /// Brings the trusted metadata up to date.
    pub async fn refresh(&self) -> Result<()> {
        self.open()?.refresh(now()).await.context("refresh")?;
        Ok(())
    }

    /// Brings the metadata up to date and downloads these targets in their order; what is there already stays.
    pub async fn download(&self, targets: &[String], folder: &Path) -> Result<()> {
        ensure!(!targets.is_empty(), "no --target-name is given");
        ensure!(self.targets.is_some(), "no --target-base-url is given");
        std::fs::create_dir_all(folder).with_context(|| format!("target folder {}", folder.display()))?;
        let mut chain = self.open()?;
        chain.refresh(now()).await.context("refresh")?;
        for target in targets {
            let path = folder.join(file_name(target));
            let held = std::fs::read(&path).ok();
            let known = held.clone();
            let bytes = chain.small_target(target, held, now()).await.with_context(|| format!("target {target:?}"))?;
            if known.as_ref() != Some(&bytes) {
                tributary_process::durable::write(&path, &bytes)
                    .with_context(|| format!("write {}", path.display()))?;
            }
        }
        Ok(())
    }

    fn open(&self) -> Result<Chain> {
        let root = self.folder.join(ROOT);
        let pinned = std::fs::read(&root).with_context(|| format!("{}: run init first", root.display()))?;
        let source = Arc::new(HttpSource::new(&self.metadata, self.targets.as_deref())?);
        let limits = ChainLimits { small_target_bytes: MAX_TARGET_BYTES, ..ChainLimits::default() };
        let files = Arc::new(FolderFiles::new(self.folder.clone()));
        Chain::open(&pinned, source, files, limits).with_context(|| format!("trusted root {}", root.display()))
    }
}

fn now() -> Micros {
    Micros(SystemClock::start().wall())
}
