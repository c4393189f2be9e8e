//! What is in memory for one line and role, and which order to serve is the newest.

use std::sync::Arc;

use edge_agent_core::updater::{Record, ServeFailure};
use tributary_wire::{ReleaseRef, Sha256};

use crate::packages::{ActivePackage, OpenError};

/// The place of one line and role in serving.
#[derive(Default)]
pub struct Slot {
    /// Checked packages in memory: the committed one, and the candidate. Going back takes no disk.
    loaded: Vec<Arc<ActivePackage>>,
    /// Counts orders to serve, so that a package that was opened for an older one is not put in place.
    order: u64,
    /// The newest order that was carried out, or failed.
    carried_out: u64,
}

/// How to carry out an order to serve.
pub enum Order {
    /// Put it in place now (`None`: the declared fallback), then [`Slot::placed`].
    Swap(Option<Arc<ActivePackage>>),
    /// It has to be read and checked first; then [`Slot::opened`] under this number.
    Open(u64, ReleaseRef),
}

impl Slot {
    /// A new order replaces the one before it.
    pub fn order(&mut self, package: Option<ReleaseRef>) -> Order {
        self.order += 1;
        let Some(release) = package else { return Order::Swap(None) };
        let loaded = self.loaded.iter().find(|package| package.reference.sha256 == release.sha256);
        loaded.map_or(Order::Open(self.order, release), |package| Order::Swap(Some(package.clone())))
    }

    /// The newest order was carried out.
    pub fn placed(&mut self) {
        self.carried_out = self.order;
    }

    /// A package was opened for the order of this number, or could not be; whether that order still counts.
    pub fn opened(&mut self, order: u64, package: Option<&Arc<ActivePackage>>) -> bool {
        if order != self.order {
            return false;
        }
        match package {
            Some(package) => self.keep(package.clone()),
            None => self.carried_out = order,
        }
        true
    }

    /// Whether the newest order was carried out, so that what serves is what was ordered.
    pub fn is_settled(&self) -> bool {
        self.order == self.carried_out
    }

    /// Keeps a checked package for the order that will come.
    pub fn keep(&mut self, package: Arc<ActivePackage>) {
        self.loaded.retain(|other| other.reference.sha256 != package.reference.sha256);
        self.loaded.push(package);
    }

    /// What the packages in memory declare to need, without this one.
    pub fn memory_beside(&self, sha256: &Sha256) -> u64 {
        let others = self.loaded.iter().filter(|package| package.reference.sha256 != *sha256);
        others.map(|package| package.package.manifest.requires.memory_bytes).sum()
    }

    /// Lets go of packages that are neither committed nor on their way.
    pub fn release(&mut self, record: &Record) {
        let needed: Vec<Sha256> =
            [record.committed.as_ref(), record.candidate.release()].into_iter().flatten().map(|it| it.sha256).collect();
        self.loaded.retain(|package| needed.contains(&package.reference.sha256));
    }
}

/// Whether the file or the package itself is to blame for a package that cannot serve.
pub fn serve_failure(error: &OpenError) -> ServeFailure {
    match error {
        OpenError::File(_) => ServeFailure::Damaged,
        _ => ServeFailure::Refused,
    }
}
