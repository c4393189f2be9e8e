//! Puts packages in place, and takes in what tasks beside the loop have finished.

use std::sync::Arc;

use edge_agent_core::lines::{self, Of};
use edge_agent_core::updater::{Doubt, Input, ServeFailure};
use tributary_wire::{ReleaseRef, Sha256};

use super::fetch::FetchError;
use super::slot::{Order, serve_failure};
use super::{Line, Updates};
use crate::packages::{ActivePackage, FileError, OpenError};
use crate::words::in_words;

/// What a task beside the loop has finished.
pub(super) struct Done {
    pub(super) of: Of,
    pub(super) work: Work,
}

pub(super) enum Work {
    Fetched(Sha256, Result<Arc<ActivePackage>, FetchError>),
    Vouched(Sha256, Result<(), Doubt>),
    /// For the order of this number.
    Opened(u64, Sha256, Result<Arc<ActivePackage>, OpenError>),
}

impl Updates {
    /// Puts a package in place, at once when it is in memory, else once it has been read and checked.
    pub(super) fn serve(&mut self, of: Of, package: Option<ReleaseRef>) -> Option<lines::Input> {
        match self.line(&of).slot.order(package) {
            Order::Swap(package) => Some(self.swap(of, package)),
            Order::Open(order, release) => {
                let (files, done) = (self.parts.files.clone(), self.done_sender.clone());
                tokio::task::spawn_blocking(move || {
                    let result = ActivePackage::open(&files, &of.0, &release).map(Arc::new);
                    let _ = done.send(Done { of, work: Work::Opened(order, release.sha256, result) });
                });
                None
            }
        }
    }

    fn swap(&mut self, of: Of, package: Option<Arc<ActivePackage>>) -> lines::Input {
        let line = self.line(&of);
        line.slot.placed();
        line.engine = package.as_ref().map_or("", |package| package.engine.name());
        let sha256 = package.as_ref().map(|package| package.reference.sha256);
        let version = package.as_ref().map(|package| package.reference.version.0);
        let input = match (self.parts.serving.swap(&of.0, &of.1, package), sha256) {
            (Ok(()), _) => {
                match version {
                    Some(version) => tracing::info!(line = %of.0, role = %of.1, version, "package in place"),
                    None => tracing::info!(line = %of.0, role = %of.1, "no package: the fallback answers"),
                }
                Input::Serving(sha256)
            }
            (Err(error), Some(sha256)) => {
                Input::ServeFailed { sha256, failure: ServeFailure::Refused, reason: in_words(&error) }
            }
            // Only a line that is not served here fails to give up its package, and such a line has none.
            (Err(_), None) => Input::Serving(None),
        };
        lines::Input::Line(of, input)
    }

    pub(super) async fn done(&mut self, Done { of, work }: Done) {
        // A role that was retired meanwhile is nobody's any more.
        let Some(record) = self.lines.updater(&of).map(|updater| updater.record().clone()) else { return };
        let slot = &mut self.line(&of).slot;
        let input = match work {
            Work::Fetched(sha256, Ok(package)) => {
                let probation = package.package.manifest.probation;
                slot.keep(package);
                slot.release(&record);
                Input::Fetched { sha256, probation }
            }
            Work::Fetched(sha256, Err(error)) => {
                let reason = in_words(&error);
                tracing::warn!(line = %of.0, %reason, "release not fetched");
                Input::FetchFailed { sha256, failure: error.failure(), reason }
            }
            Work::Vouched(sha256, chain) => {
                if let Err(doubt) = &chain {
                    tracing::warn!(line = %of.0, role = %of.1, ?doubt, "a staged package is not tried");
                }
                let believed = self.believed();
                return self.tell(lines::Input::Vouched { of, sha256, believed, chain }).await;
            }
            Work::Opened(order, sha256, result) => {
                if !slot.opened(order, result.as_ref().ok()) {
                    return;
                }
                match result {
                    Ok(package) => {
                        let placed = self.swap(of, Some(package));
                        return self.tell(placed).await;
                    }
                    Err(error) => {
                        let reason = in_words(&error);
                        tracing::error!(line = %of.0, %reason, "package cannot serve");
                        if let OpenError::File(error) = &error {
                            self.discard(&sha256, error);
                        }
                        Input::ServeFailed { sha256, failure: serve_failure(&error), reason }
                    }
                }
            }
        };
        self.tell(lines::Input::Line(of, input)).await;
    }

    /// A file whose bytes have changed makes room for another copy; one that could not be read may be read later.
    fn discard(&self, sha256: &Sha256, error: &FileError) {
        if error.is_damage()
            && let Err(error) = self.parts.files.remove(sha256)
        {
            tracing::warn!(%error, "damaged package file not removed");
        }
    }

    pub(super) fn line(&mut self, of: &Of) -> &mut Line {
        self.places.entry(of.clone()).or_default()
    }
}
