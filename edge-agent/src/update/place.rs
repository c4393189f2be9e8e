//! Puts packages in place, and takes in what tasks beside the loop have finished.

use std::sync::Arc;

use edge_agent_core::updater::{Input, ServeFailure};
use tributary_wire::{ReleaseRef, Sha256};

use super::Updates;
use super::line::{Done, Work};
use crate::packages::{ActivePackage, FileError, OpenError};
use crate::words::in_words;

impl Updates {
    /// Puts a package in place, at once when it is in memory, else once it has been read and checked.
    pub(super) fn serve(&mut self, index: usize, package: Option<ReleaseRef>) -> Option<Input> {
        let line = &mut self.lines[index];
        line.order += 1;
        let Some(release) = package else { return Some(self.swap(index, None)) };
        if let Some(package) = line.loaded(&release) {
            return Some(self.swap(index, Some(package)));
        }
        let (order, name, role) = (line.order, line.name.clone(), line.role.clone());
        let (files, done) = (self.parts.files.clone(), self.done_sender.clone());
        tokio::task::spawn_blocking(move || {
            let result = ActivePackage::open(&files, &name, &release).map(Arc::new);
            let _ = done.send(Done { line: name, role, work: Work::Opened(order, release.sha256, result) });
        });
        None
    }

    fn swap(&mut self, index: usize, package: Option<Arc<ActivePackage>>) -> Input {
        let line = &mut self.lines[index];
        line.carried_out = line.order;
        let sha256 = package.as_ref().map(|package| package.reference.sha256);
        line.engine = package.as_ref().map_or("", |package| package.engine.name());
        let version = package.as_ref().map(|package| package.reference.version.0);
        match (self.parts.serving.swap(&line.name, &line.role, package), sha256) {
            (Ok(()), _) => {
                match version {
                    Some(version) => tracing::info!(line = %line.name, role = %line.role, version, "package in place"),
                    None => tracing::info!(line = %line.name, role = %line.role, "no package: the fallback answers"),
                }
                Input::Serving(sha256)
            }
            (Err(error), Some(sha256)) => {
                Input::ServeFailed { sha256, failure: ServeFailure::Refused, reason: in_words(&error) }
            }
            // Only a line that is not served here fails to give up its package, and such a line has none.
            (Err(_), None) => Input::Serving(None),
        }
    }

    pub(super) async fn done(&mut self, done: Done) {
        let Some(index) = self.lines.iter().position(|line| line.is(&done.line, &done.role)) else { return };
        let line = &mut self.lines[index];
        let input = match done.work {
            Work::Fetched(sha256, Ok(package)) => {
                let probation = package.package.manifest.probation;
                line.keep(package);
                line.release();
                Input::Fetched { sha256, probation }
            }
            Work::Fetched(sha256, Err(error)) => {
                let reason = in_words(&error);
                tracing::warn!(line = %line.name, %reason, "release not fetched");
                Input::FetchFailed { sha256, failure: error.failure(), reason }
            }
            Work::Opened(order, ..) if order != line.order => return,
            Work::Opened(_, _, Ok(package)) => {
                line.keep(package.clone());
                self.swap(index, Some(package))
            }
            Work::Opened(_, sha256, Err(error)) => {
                line.carried_out = line.order;
                let reason = in_words(&error);
                tracing::error!(line = %line.name, %reason, "package cannot serve");
                let failure = match &error {
                    OpenError::File(error) => {
                        self.discard(&sha256, error);
                        ServeFailure::Damaged
                    }
                    _ => ServeFailure::Refused,
                };
                Input::ServeFailed { sha256, failure, reason }
            }
        };
        self.tell(index, input).await;
    }

    /// A file whose bytes have changed makes room for another copy; one that could not be read may be read later.
    fn discard(&self, sha256: &Sha256, error: &FileError) {
        if error.is_damage()
            && let Err(error) = self.parts.files.remove(sha256)
        {
            tracing::warn!(%error, "damaged package file not removed");
        }
    }
}
