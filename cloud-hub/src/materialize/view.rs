//! The fleet-scope windows of one view, and when to take a snapshot of them. No I/O.

use std::collections::HashMap;

use cloud_hub_lake::dataset::{EventRow, LabelRow};
use tributary_features::{FleetWindows, Scope, View};
use tributary_wire::{FeatureSnapshotV1, Micros, SnapshotNumber};

use super::floor::Floor;

/// A part stays well below what one MQTT message may carry, so that it never delays an acknowledgement for long.
const PART_BYTES: usize = 192 * 1024;

/// See the module.
pub(super) struct FleetView {
    view: View,
    windows: FleetWindows,
    /// The newest event time of each device.
    newest: HashMap<String, Micros>,
    last: Option<(SnapshotNumber, Micros)>,
}

impl FleetView {
    /// Empty windows that go on after the snapshot `last`.
    pub(super) fn new(view: View, last: Option<(SnapshotNumber, Micros)>) -> Self {
        Self { windows: FleetWindows::new(&view), view, newest: HashMap::new(), last }
    }

    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// Events older than this cannot be in any snapshot that is still to come.
    pub(super) fn needed_since(&self) -> Micros {
        let taken = self.last.map_or(i64::MIN, |(_, taken)| taken.0);
        Micros(taken.saturating_sub(self.view.reach(Scope::Fleet)))
    }

    pub(super) fn take_events(&mut self, events: Vec<EventRow>) {
        for event in events {
            self.windows.observe(&event.id, &event.row);
            let newest = self.newest.entry(event.device).or_insert(event.row.time);
            *newest = (*newest).max(event.row.time);
        }
    }

    pub(super) fn take_labels(&mut self, labels: Vec<LabelRow>) {
        for label in labels {
            self.windows.label(&label.event, label.known_at, label.label);
        }
    }

    /// The instant for which a snapshot is due: the last step of the cadence that event time has passed on the device
    /// that is farthest ahead (agents refuse times from the future), but none whose windows could still gain events
    /// from a device that is behind. A device that is behind by more than a snapshot lives is not waited for.
    pub(super) fn due(&self) -> Option<Micros> {
        let fleet = self.view.fleet()?;
        let ahead = *self.newest.values().max()?;
        let waited = self.newest.values().filter(|newest| ahead.since(**newest) <= fleet.lifetime);
        let behind = *waited.min()?;
        let windows = self.view.features().iter().filter(|feature| feature.scope == Scope::Fleet);
        // Windows end `delay` before the snapshot: what happened since does not enter them.
        let delay = windows.filter_map(|feature| feature.window()).map(|window| window.delay).min()?;
        let settled = behind.0.saturating_sub(self.view.lateness()).saturating_add(delay);
        let due = ahead.0.min(settled).div_euclid(fleet.cadence).saturating_mul(fleet.cadence);
        self.last.is_none_or(|(_, taken)| due > taken.0).then_some(Micros(due))
    }

    /// The next snapshot, taken at `due`. It counts once [`FleetView::kept`] is told.
    pub(super) fn snapshot(&mut self, due: Micros, floor: Floor) -> (SnapshotNumber, Vec<FeatureSnapshotV1>) {
        let cadence = self.view.fleet().map_or(1, |fleet| fleet.cadence);
        let number = floor.next(self.last, due, cadence);
        (number, self.windows.values_at(due).into_parts(&self.view, number, PART_BYTES))
    }

    /// The snapshot is durable.
    pub(super) fn kept(&mut self, number: SnapshotNumber, taken: Micros) {
        self.last = Some((number, taken));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tributary_fraud::{Generator, GeneratorConfig, Transaction, VIEW_TOML};
    use tributary_wire::EntityKey;

    fn event(payment: &Transaction, device: &str) -> EventRow {
        let (id, row) = (payment.event_id(), payment.to_row());
        EventRow { id, device: device.to_owned(), incarnation: 1, accepted: payment.id, row, inclusion: 1.0 }
    }

    fn payments(days: u32) -> Vec<Transaction> {
        Generator::new(GeneratorConfig { customers: 40, terminals: 10, days, ..GeneratorConfig::default() }).collect()
    }

    fn at(payments: &[Transaction], time: i64) -> Transaction {
        Transaction { id: 1_000_000 + time, time: Micros(payments[0].time.0 + time), ..payments[0].clone() }
    }

    #[test]
    fn a_snapshot_is_due_when_event_time_passes_a_step_of_the_cadence() {
        let payments = payments(1);
        let mut fleet = FleetView::new(View::from_toml(VIEW_TOML).unwrap(), None);
        assert_eq!(fleet.due(), None, "nothing happened yet");
        fleet.take_events(vec![event(&at(&payments, 0), "edge-1")]);
        let first = fleet.due().unwrap();
        assert_eq!(first.0 % (12 * Micros::HOUR), 0);
        let (number, _) = fleet.snapshot(first, Floor::default());
        assert_eq!((number, fleet.due()), (SnapshotNumber(1), Some(first)), "until it is kept");
        fleet.kept(number, first);
        assert_eq!(fleet.due(), None);
        fleet.take_events(vec![event(&at(&payments, 30 * Micros::HOUR), "edge-1")]);
        let second = fleet.due().unwrap();
        assert!(second.since(first) >= 24 * Micros::HOUR, "steps that were missed are not made up for");
        assert_eq!(fleet.snapshot(second, Floor::default()).0, SnapshotNumber(2));
    }

    #[test]
    fn a_device_that_is_behind_holds_a_snapshot_up_only_while_it_matters() {
        let payments = payments(1);
        let mut fleet =
            FleetView::new(View::from_toml(&VIEW_TOML.replace("delay = \"7d\"", "delay = \"8d\"")).unwrap(), None);
        fleet.take_events(vec![event(&at(&payments, 0), "edge-1"), event(&at(&payments, 0), "edge-2")]);
        let first = fleet.due().unwrap();
        // Five days ahead: the windows of that time end eight days earlier, before the other device's place.
        fleet.take_events(vec![event(&at(&payments, 5 * Micros::DAY), "edge-1")]);
        assert_eq!(fleet.due().unwrap().since(first), 5 * Micros::DAY);
        let sooner = VIEW_TOML
            .replace("delay = \"7d\"", "delay = \"2d\"")
            .replace("label_delay = \"7d\"", "label_delay = \"2d\"");
        let mut fleet = FleetView::new(View::from_toml(&sooner).unwrap(), None);
        fleet.take_events(vec![event(&at(&payments, 0), "edge-1"), event(&at(&payments, 0), "edge-2")]);
        let first = fleet.due().unwrap();
        fleet.take_events(vec![event(&at(&payments, 5 * Micros::DAY), "edge-1")]);
        assert!(fleet.due().unwrap().since(first) <= 2 * Micros::DAY, "the other device's events would be missing");
        fleet.take_events(vec![event(&at(&payments, 8 * Micros::DAY), "edge-1")]);
        assert!(fleet.due().unwrap().since(first) >= 7 * Micros::DAY, "it is not waited for any longer");
    }

    #[test]
    fn a_snapshot_after_a_restart_is_the_one_that_would_have_been_taken() {
        let payments = payments(60);
        let label = |payment: &Transaction| LabelRow {
            event: payment.event_id(),
            label: payment.fraud,
            known_at: payment.label_known_at(7 * Micros::DAY),
        };
        let view = View::from_toml(VIEW_TOML).unwrap();
        let mut fleet = FleetView::new(view.clone(), None);
        let half = payments.len() / 2;
        fleet.take_events(payments[..half].iter().map(|payment| event(payment, "edge-1")).collect());
        fleet.take_labels(payments[..half].iter().map(label).collect());
        let middle = fleet.due().unwrap();
        let (number, _) = fleet.snapshot(middle, Floor::default());
        fleet.kept(number, middle);
        let mut restarted = FleetView::new(view, Some((number, middle)));
        let since = restarted.needed_since();
        let needed = payments.iter().filter(|payment| payment.time > since);
        restarted.take_labels(needed.clone().map(label).collect());
        restarted.take_events(needed.map(|payment| event(payment, "edge-1")).collect());
        fleet.take_events(payments[half..].iter().map(|payment| event(payment, "edge-1")).collect());
        fleet.take_labels(payments[half..].iter().map(label).collect());
        let due = fleet.due().unwrap();
        assert_eq!(restarted.due(), Some(due));
        let (number, parts) = fleet.snapshot(due, Floor::default());
        assert_eq!((number, parts.clone()), restarted.snapshot(due, Floor::default()));
        let terminal = parts[0].rows.iter().find(|row| row.key == EntityKey::Int(3)).unwrap();
        assert!(terminal.values.iter().any(|value| *value > 1.0));
        assert!(parts[0].rows.iter().any(|row| row.values.iter().any(|value| *value > 0.0 && *value < 1.0)), "shares");
    }
}
