//! Whose prediction is the answer: the primary's, or that of the challenger whose share the entity is in.

use edge_agent_core::challengers::Challengers;
pub use edge_agent_core::lines::Share;
use tributary_wire::{LineName, Role, Sha256};

/// Who answers in each place.
#[derive(Debug, Default)]
pub(super) struct Answering {
    shares: Vec<Share>,
    challengers: Challengers,
}

impl Answering {
    pub(super) fn new(line: &LineName, shares: &[Share]) -> Self {
        let places: Vec<(Role, u16)> = shares.iter().map(|share| (share.role.clone(), share.per_10_000)).collect();
        Self { shares: shares.to_vec(), challengers: Challengers::new(line, &places) }
    }

    pub(super) fn is(&self, shares: &[Share]) -> bool {
        self.shares == shares
    }

    /// Whether nobody but the primary answers: then no event need be given a place.
    pub(super) fn is_empty(&self) -> bool {
        self.challengers.is_empty()
    }

    /// The challenger of a place, with the one package of it that may answer.
    pub(super) fn at(&self, place: u16) -> Option<(&Role, Sha256)> {
        let role = self.challengers.at(place)?;
        let share = self.shares.iter().find(|share| share.role == *role)?;
        Some((role, share.package?))
    }
}
