//! A package on its way to a device, piece by piece, over a network that may break off or be somebody else.

use edge_agent::packages::{FileError, PackageFiles, Partial};
use edge_agent::update::FetchError;
use tributary_wire::ReleaseRef;

/// Pieces of this size.
const PIECE: usize = 3_000;

/// One download.
#[derive(Debug)]
pub(super) struct Download {
    pub(super) number: u64,
    pub(super) release: ReleaseRef,
    pub(super) snapshot: u64,
    pub(super) known: bool,
    partial: Option<Partial>,
}

/// How far a download came.
pub(super) enum Came {
    /// There is more.
    More,
    /// It is whole, and what was released.
    Whole,
}

impl Download {
    pub(super) fn new(number: u64, release: ReleaseRef, snapshot: u64, known: bool) -> Self {
        Self { number, release, snapshot, known, partial: None }
    }

    /// The next piece of what somebody sends as this package.
    pub(super) fn piece(&mut self, files: &PackageFiles, sent: &[u8]) -> Result<Came, FetchError> {
        let partial = match &mut self.partial {
            Some(partial) => partial,
            None => self.partial.insert(files.partial(&self.release)?),
        };
        let from = (partial.written() as usize).min(sent.len());
        let piece = &sent[from..sent.len().min(from + PIECE)];
        partial.write(piece)?;
        let there = partial.written();
        if there < self.release.length && !piece.is_empty() {
            return Ok(Came::More);
        }
        let Some(partial) = self.partial.take() else { return Ok(Came::More) };
        partial.finish().map_err(|error: FileError| FetchError::Download(error.into()))?;
        Ok(Came::Whole)
    }
}
