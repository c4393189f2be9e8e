//! What the outbox gives up when there is not room, or time, for everything.

/// How long records are kept, compared with others: what is less goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Observations that are neither close nor rare: others like them remain.
    Ordinary,
    /// Close and rare observations.
    Remarkable,
    /// Events: observations can be made from them again, not they from observations.
    Event,
    /// Labels, reports, sketches, the health of nodes and whatever else is small and sums up.
    Summary,
}

impl Class {
    /// The class of a batch.
    pub fn of(stream: &str, remarkable: bool) -> Self {
        match stream {
            "observations" if remarkable => Self::Remarkable,
            "observations" => Self::Ordinary,
            "events" => Self::Event,
            _ => Self::Summary,
        }
    }

    /// Whether records of this class are given up for their age.
    pub fn ages(self) -> bool {
        matches!(self, Self::Ordinary | Self::Remarkable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_outlive_events_and_those_outlive_observations() {
        let order = [("observations", false), ("observations", true), ("events", false), ("sketches", false)];
        let classes = order.map(|(stream, remarkable)| Class::of(stream, remarkable));
        assert!(classes.is_sorted() && classes.windows(2).all(|pair| pair[0] != pair[1]));
        for stream in ["labels", "reports", "node-health", "anything-new"] {
            assert_eq!(Class::of(stream, false), Class::Summary);
        }
        assert_eq!(classes.map(Class::ages), [true, true, false, false]);
    }
}
