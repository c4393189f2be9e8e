//! The steps of the story.

use clap::ValueEnum;
use serde::Serialize;

/// One step; each can be sabotaged, and is then found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// A hub and three agents run and are connected. Sabotage: one agent gets a wrong address.
    Start,
    /// Accepted payments reach the lake. Sabotage: a file of the lake is deleted.
    Stream,
    /// A first model is trained, quantized, proved and signed. Sabotage: the run is cancelled.
    Train,
    /// Every agent runs it. Sabotage: one agent is stopped.
    Ship,
    /// The agents decide by it. Sabotage: one agent loses its package.
    Decide,
    /// The fraud pattern changes and the hub notices. Sabotage: it does not change.
    Detect,
    /// The pattern stays as it is, and the hub stays calm (`--no-change`).
    #[value(skip)]
    Calm,
    /// A better model is trained without anyone asking. Sabotage: the run is cancelled.
    Retrain,
    /// It reaches every agent in waves. Sabotage: the rollout is paused.
    Waves,
    /// Both models score the same later payments. Sabotage: the new one is compared with itself.
    Compare,
    /// A signed package that fails in the field is stopped and undone. Sabotage: the package is sound.
    BadRelease,
    /// Accepted equals in the lake plus reported as dropped. Sabotage: one event is claimed that was never accepted.
    Reconcile,
}

impl Step {
    /// One line for the person who watches.
    pub fn title(self) -> &'static str {
        match self {
            Self::Start => "A hub and three agents start",
            Self::Stream => "Payments stream in, with no model yet",
            Self::Train => "The hub trains a first model",
            Self::Ship => "The signed package goes to every agent",
            Self::Decide => "The agents decide by themselves",
            Self::Detect => "Fraudsters change their pattern",
            Self::Calm => "Weeks go by, and nothing changes",
            Self::Retrain => "The hub retrains without being asked",
            Self::Waves => "The new version rolls out in waves",
            Self::Compare => "Both versions, same later payments",
            Self::BadRelease => "A bad package is shipped on purpose",
            Self::Reconcile => "Every accepted payment is counted again",
        }
    }
}
