//! Event-scope features: what the event alone tells.

use crate::calendar::{Calendar, Local};
use crate::event::Row;
use crate::marks::Marks;
use crate::view::{FeatureKind, View};

/// The event-scope features of a view.
pub(crate) struct Simple {
    outputs: Vec<(usize, FeatureKind, f32)>,
    calendar: Calendar,
    needs_calendar: bool,
}

impl Simple {
    pub(crate) fn new(view: &View) -> Self {
        let outputs = view.features().iter().enumerate().filter(|(_, feature)| feature.window().is_none());
        let outputs: Vec<_> = outputs.map(|(at, feature)| (at, feature.kind.clone(), feature.default)).collect();
        let needs_calendar = outputs.iter().any(|(_, kind, _)| !matches!(kind, FeatureKind::Value(_)));
        Self { outputs, calendar: Calendar::new(view.time_zone()), needs_calendar }
    }

    /// Fills them; remembers where the time zone's offset changes.
    #[inline]
    pub(crate) fn fill(&mut self, row: &Row, out: &mut [f32]) -> Marks {
        if self.needs_calendar {
            self.calendar.visit(row.time.0);
        }
        self.peek(row, out)
    }

    /// Fills them and leaves everything as it is.
    pub(crate) fn peek(&self, row: &Row, out: &mut [f32]) -> Marks {
        let local =
            if self.needs_calendar { self.calendar.local(row.time.0) } else { Local { hour: 0, weekend: false } };
        let mut marks = Marks::NONE;
        for (at, kind, default) in &self.outputs {
            let is_true = match *kind {
                FeatureKind::Value(value) => {
                    out[*at] = match row.values[value] {
                        Some(value) => value as f32,
                        None => {
                            marks |= Marks::VALUE_MISSING;
                            *default
                        }
                    };
                    continue;
                }
                FeatureKind::Weekend => local.weekend,
                FeatureKind::Night { first, last } if first <= last => (first..=last).contains(&local.hour),
                FeatureKind::Night { first, last } => local.hour >= first || local.hour <= last,
                FeatureKind::Window(_) => unreachable!("windows are not among the outputs"),
            };
            out[*at] = f32::from(u8::from(is_true));
        }
        marks
    }
}
