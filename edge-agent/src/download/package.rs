//! A package, from whichever origins, until its bytes are those released.

use std::io;

use tributary_release::delta::Way;
use tributary_release::{hashed_path, package_path};
use tributary_wire::{LineName, ReleaseRef};

use super::error::DownloadError;
use super::{Origins, Sink, Wanted};
use crate::packages::{PackageFiles, Partial};

impl Origins {
    /// Brings a package into its place, checked by length and hash. Bytes that turn out to be wrong are fetched again, from
    /// others first, as often as there are origins; the last error is then the answer.
    pub async fn package(
        &self,
        files: &PackageFiles,
        line: &LineName,
        release: &ReleaseRef,
    ) -> Result<(), DownloadError> {
        let path = format!("targets/{}", hashed_path(&package_path(line, release.version), &release.sha256));
        let wanted = Wanted { path, length: release.length, sha256: release.sha256 };
        let mut left = self.0.origins.len();
        loop {
            let partial = begin(files, release).await?;
            let (partial, givers) = self.fill(&wanted, partial).await?;
            // Reads the whole file, so beside the runtime.
            let finished = tokio::task::spawn_blocking(move || partial.finish()).await.map_err(io::Error::other)?;
            left = left.saturating_sub(1);
            match finished {
                Err(error) if error.is_damage() => {
                    self.lied(&givers);
                    if left == 0 {
                        return Err(error.into());
                    }
                }
                finished => {
                    finished?;
                    self.arrived(release, Way::Plain.name(), release.length, &givers);
                    return Ok(());
                }
            }
        }
    }
}

/// Opens the file of a download beside the runtime.
pub(super) async fn begin(files: &PackageFiles, release: &ReleaseRef) -> io::Result<Partial> {
    let (files, release) = (files.clone(), release.clone());
    tokio::task::spawn_blocking(move || files.partial(&release)).await.map_err(io::Error::other)?
}

impl Sink for Partial {
    fn written(&self) -> u64 {
        self.written()
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.write(piece)
    }

    fn restart(&mut self) -> io::Result<()> {
        self.restart()
    }
}
