//! Which windows of a view share which boundaries: worked out once, so that an event only moves cursors.

use crate::fixed;
use crate::view::{Aggregate, Feature, Scope, View};

/// All windows of one entity that are computed together.
///
/// A window is bounded by two *offsets* back from the present event: `delay` (near) and `delay + length` (far). Windows
/// share offsets, and the events between two of them are a difference of two running sums.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Place of the entity in the view.
    pub(crate) entity: usize,
    /// Its name, to tell stored states apart.
    pub(crate) name: String,
    /// Distinct offsets, ascending.
    pub(crate) offsets: Vec<i64>,
    /// Values of the view that are summed.
    pub(crate) columns: Vec<usize>,
    /// Their names, in the same order.
    pub(crate) column_names: Vec<String>,
    /// Whether labels are summed too.
    pub(crate) labels: bool,
    /// One per feature.
    pub(crate) outputs: Vec<Output>,
    /// At most so many events of one entity are kept.
    pub(crate) max_events: usize,
}

/// Where a feature's value comes from and goes to.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    /// Place of the feature in the view.
    pub(crate) at: usize,
    /// What is served when the window cannot be computed.
    pub(crate) default: f32,
    /// Offset of the later bound.
    pub(crate) near: usize,
    /// Offset of the earlier bound.
    pub(crate) far: usize,
    pub(crate) term: Term,
}

/// Which running sum a feature uses.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Term {
    Count,
    Sum(usize),
    Mean(usize),
    LabelShare,
}

impl Plan {
    /// One plan per entity that has windows in one of `scopes`.
    pub(crate) fn of(view: &View, scopes: &[Scope]) -> Vec<Self> {
        (0..view.entities().len()).filter_map(|entity| Self::of_entity(view, scopes, entity)).collect()
    }

    fn of_entity(view: &View, scopes: &[Scope], entity: usize) -> Option<Self> {
        let chosen = |feature: &Feature| {
            feature.window().filter(|window| scopes.contains(&feature.scope) && window.entity == entity)
        };
        let windows: Vec<_> = view.features().iter().filter_map(chosen).collect();
        if windows.is_empty() {
            return None;
        }
        let mut offsets: Vec<_> = windows.iter().flat_map(|w| [w.delay, w.delay + w.length]).collect();
        offsets.sort_unstable();
        offsets.dedup();
        let mut columns: Vec<_> = windows
            .iter()
            .filter_map(|window| match window.aggregate {
                Aggregate::Sum(value) | Aggregate::Mean(value) => Some(value),
                Aggregate::Count | Aggregate::LabelShare => None,
            })
            .collect();
        columns.sort_unstable();
        columns.dedup();
        let place = |offset: i64| offsets.binary_search(&offset).expect("every offset was gathered above");
        let column = |value: usize| columns.binary_search(&value).expect("every column was gathered above");
        let outputs = view.features().iter().enumerate().filter_map(|(at, feature)| {
            chosen(feature).map(|window| Output {
                at,
                default: feature.default,
                near: place(window.delay),
                far: place(window.delay + window.length),
                term: match window.aggregate {
                    Aggregate::Count => Term::Count,
                    Aggregate::Sum(value) => Term::Sum(column(value)),
                    Aggregate::Mean(value) => Term::Mean(column(value)),
                    Aggregate::LabelShare => Term::LabelShare,
                },
            })
        });
        let outputs = outputs.collect();
        let column_names = columns.iter().map(|value| view.values()[*value].name.clone()).collect();
        let labels = windows.iter().any(|window| window.aggregate == Aggregate::LabelShare);
        let max_events = view.max_events();
        let name = view.entities()[entity].name.clone();
        Some(Self { entity, name, offsets, columns, column_names, labels, outputs, max_events })
    }

    /// The farthest offset: an event farther back than this matters no more.
    pub(crate) fn reach(&self) -> i64 {
        self.offsets.last().copied().unwrap_or(0)
    }
}

impl Term {
    /// The feature's value from the counts and sums between its bounds.
    #[inline]
    pub(crate) fn value(self, count: u64, sum: impl Fn(usize) -> i128, labels: impl Fn() -> u64) -> f32 {
        match self {
            Self::Count => count as f32,
            Self::Sum(column) => fixed::to_f64(sum(column)) as f32,
            Self::Mean(_) | Self::LabelShare if count == 0 => 0.0,
            Self::Mean(column) => (fixed::to_f64(sum(column)) / count as f64) as f32,
            Self::LabelShare => (labels() as f64 / count as f64) as f32,
        }
    }
}
