//! A package by a cheaper way: as the difference from one that is here, or compressed.
//!
//! Nobody signs a patch. What comes out must be the release by length and hash, and what cannot be done by a patch is done
//! without: a bad one costs its own bytes, once, and a few of them are tried at most.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tributary_release::delta::{
    DeltaError, MAX_INDEX_BYTES, Outcome, PatchEntry, PatchIndex, Way, apply, choose, index_path,
};
use tributary_wire::{ReleaseRef, Sha256};

use super::package::begin;
use super::{DownloadError, Givers, Origins, Wanted};
use crate::packages::{FileError, PackageFiles, Partial};
use crate::words::in_words;

/// Patches to one release that are tried: each may cost nearly as much as the release.
const MOST: usize = 3;
/// Downloads of one patch that may break off before another way is taken.
const BREAKS: u32 = 3;
/// Releases whose failures are remembered.
const REMEMBERED: usize = 64;

/// Patches that led nowhere, by the package that they lead to; under its own hash the index of them.
#[derive(Debug, Default)]
pub(super) struct Tried(Mutex<BTreeMap<Sha256, BTreeMap<Sha256, u32>>>);

/// Why a patch did not lead to the release.
#[derive(Debug, thiserror::Error)]
enum PatchError {
    #[error(transparent)]
    Download(#[from] DownloadError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Delta(#[from] DeltaError),
    #[error("disk")]
    Disk(#[from] io::Error),
}

impl Tried {
    fn shown(&self) -> MutexGuard<'_, BTreeMap<Sha256, BTreeMap<Sha256, u32>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Patches that are not tried again.
    fn failed(&self, to: &Sha256) -> Vec<Sha256> {
        let tried = self.shown();
        tried
            .get(to)
            .into_iter()
            .flatten()
            .filter(|(patch, breaks)| *patch != to && **breaks >= BREAKS)
            .map(|(patch, _)| *patch)
            .collect()
    }

    /// Whether it may be tried again.
    fn add(&self, to: &Sha256, patch: &Sha256, breaks: u32) -> bool {
        let mut tried = self.shown();
        if tried.len() >= REMEMBERED && !tried.contains_key(to) {
            tried.pop_first();
        }
        let count = tried.entry(*to).or_default().entry(*patch).or_default();
        *count += breaks;
        *count < BREAKS
    }

    fn forget(&self, to: &Sha256) {
        self.shown().remove(to);
    }
}

impl Origins {
    /// Puts the release into its place by the cheapest patch that works. `false`: there is none, and it has to come as it
    /// is. An error is one of the network, after which the same patch goes on where it broke off.
    pub async fn by_patch(&self, files: &PackageFiles, release: &ReleaseRef) -> Result<bool, DownloadError> {
        let tried = &self.0.tried;
        let Some(index) = self.index(release).await? else { return Ok(false) };
        loop {
            let failed = tried.failed(&release.sha256);
            // What came of the plain file need not come again.
            let left = release.length.saturating_sub(begin(files, release).await?.written());
            let way = match failed.len() {
                MOST.. => Way::Plain,
                _ => choose(&files.held()?, &index, left, &failed),
            };
            let Way::Patch(entry) = &way else {
                files.drop_patch(&release.sha256)?;
                return Ok(false);
            };
            let ended = self.patched(files, release, entry).await;
            let error = match ended {
                Err(error) => error,
                Ok(givers) => {
                    files.drop_patch(&release.sha256)?;
                    tried.forget(&release.sha256);
                    self.0.metrics.patched(way.name(), release.length - entry.length);
                    self.arrived(release, way.name(), entry.length, &givers);
                    return Ok(true);
                }
            };
            let breaks = match &error {
                PatchError::Download(error) if may_go_on(error) => 1,
                _ => BREAKS,
            };
            let again = tried.add(&release.sha256, &entry.sha256, breaks);
            tracing::warn!(
                way = way.name(), patch = %entry.sha256, error = %in_words(&error), again,
                "a release did not come by this way"
            );
            match error {
                PatchError::Download(error) if again => return Err(error),
                _ => {}
            }
        }
    }

    /// `None`: there is no index, or none that can be had. One lost answer is not worth a whole package: whoever fetches
    /// comes again after a while, but not for ever, because without an index everything works too.
    async fn index(&self, release: &ReleaseRef) -> Result<Option<PatchIndex>, DownloadError> {
        let path = index_path(&release.sha256);
        let bytes = match self.unsigned(&path, MAX_INDEX_BYTES as u64).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(error) if self.0.tried.add(&release.sha256, &release.sha256, 1) => return Err(error),
            Err(error) => {
                tracing::warn!(path, error = %in_words(&error), "the index of patches does not come");
                return Ok(None);
            }
        };
        let index = PatchIndex::decode(&bytes);
        Ok(index
            .inspect_err(|error| tracing::warn!(path, error = %in_words(error), "the index of patches is none"))
            .ok())
    }

    async fn patched(
        &self,
        files: &PackageFiles,
        release: &ReleaseRef,
        entry: &PatchEntry,
    ) -> Result<Givers, PatchError> {
        // A patch lies on disk like a package: it goes on after a restart, and is checked by length and hash.
        let patch = ReleaseRef { version: release.version, length: entry.length, sha256: entry.sha256 };
        files.keep_patch(&release.sha256, &patch.sha256)?;
        let mut gave = Givers::default();
        if !files.has(&patch.sha256) {
            let partial = begin(files, &patch).await?;
            let path = entry.path(&release.sha256);
            let wanted = Wanted { path, length: patch.length, sha256: patch.sha256 };
            let (partial, givers) = self.fill(&wanted, partial).await?;
            let finished = tokio::task::spawn_blocking(move || partial.finish()).await.map_err(io::Error::other)?;
            if let Err(error) = finished {
                if error.is_damage() {
                    self.lied(&givers);
                }
                return Err(error.into());
            }
            gave = givers;
        }
        let (files, release, from) = (files.clone(), release.clone(), entry.from);
        let made = tokio::task::spawn_blocking(move || make(&files, &release, &patch, from));
        made.await.map_err(io::Error::other)??;
        Ok(gave)
    }
}

/// Whether the rest of a patch may still come: not when there is none, or this device's disk refuses.
fn may_go_on(error: &DownloadError) -> bool {
    match error {
        DownloadError::NoHub => true,
        DownloadError::Failed { source, .. } => !source.is_missing(),
        DownloadError::Disk(_) | DownloadError::File(_) => false,
    }
}

/// The release out of the patch, in its place. Memory holds the old package and the patch; what is made goes to disk.
fn make(
    files: &PackageFiles,
    release: &ReleaseRef,
    patch: &ReleaseRef,
    from: Option<Sha256>,
) -> Result<(), PatchError> {
    let held = |sha256| {
        let old = ReleaseRef { version: release.version, length: files.length(&sha256)?, sha256 };
        Ok::<_, PatchError>(files.read(&old)?)
    };
    let old = from.map(held).transpose()?;
    let bytes = files.read(patch)?;
    let mut partial = files.partial(release)?;
    partial.restart()?;
    let expected = Outcome { length: release.length, sha256: release.sha256 };
    let mut out = io::BufWriter::with_capacity(1 << 16, Into(&mut partial));
    let applied = apply(old.as_deref(), &bytes[..], &mut out, &expected);
    // What it holds back of a failed one is of no use either.
    let _ = out.into_parts();
    if let Err(error) = applied {
        partial.restart()?;
        return Err(error.into());
    }
    Ok(partial.finish()?)
}

struct Into<'a>(&'a mut Partial);

impl Write for Into<'_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.0.write(piece).map(|()| piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
