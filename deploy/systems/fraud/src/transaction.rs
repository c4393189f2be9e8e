//! One payment, and what the rest of the system sees of it.

use serde::{Deserialize, Serialize};
use tributary_features::{EntityKey, Event, EventId, Micros, Row, Value};

use crate::chance::mix;

/// One card payment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transaction {
    /// Number within its stream.
    pub id: i64,
    /// When.
    pub time: Micros,
    /// Whose card.
    pub customer_id: i64,
    /// Where.
    pub terminal_id: i64,
    /// How much.
    pub amount: f64,
    /// Whether it was a fraud: the label.
    pub fraud: bool,
    /// Which kind of fraud (0: none); never a feature.
    pub scenario: u8,
}

impl Transaction {
    /// Its id as an event: `tx-<id>`.
    pub fn event_id(&self) -> EventId {
        EventId::new(&format!("tx-{}", self.id)).expect("a short text without control characters")
    }

    /// As an event of the view `card-risk`. The label stays behind.
    pub fn to_event(&self) -> Event {
        Event {
            id: self.event_id(),
            time: self.time,
            entities: vec![
                ("customer_id".to_owned(), EntityKey::Int(self.customer_id)),
                ("terminal_id".to_owned(), EntityKey::Int(self.terminal_id)),
            ],
            values: vec![("amount".to_owned(), Value::Double(self.amount))],
        }
    }

    /// As a row of the view `card-risk`, for replays that have no use for the checks of an event.
    pub fn to_row(&self) -> Row {
        let entities = vec![EntityKey::Int(self.customer_id), EntityKey::Int(self.terminal_id)];
        Row { time: self.time, entities, values: vec![Some(self.amount)] }
    }

    /// When its label becomes known, `delay` microseconds after the event.
    pub fn label_known_at(&self, delay: i64) -> Micros {
        Micros(self.time.0.saturating_add(delay))
    }

    /// On which of `devices` (at least one) it happens: always the same for one customer.
    pub fn device(&self, devices: usize) -> usize {
        (mix(self.customer_id as u64) % devices.max(1) as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tributary_features::View;

    fn payment(customer_id: i64) -> Transaction {
        let time = Micros(1_525_132_800_000_000);
        Transaction { id: 7, time, customer_id, terminal_id: 3, amount: 12.5, fraud: false, scenario: 0 }
    }

    #[test]
    fn a_payment_fits_the_view_and_its_row_is_the_event_s_row() {
        let view = View::from_toml(crate::VIEW_TOML).unwrap();
        assert_eq!(view.features().len(), 15);
        assert_eq!(view.row(&payment(5).to_event()).unwrap(), payment(5).to_row());
    }

    #[test]
    fn customers_stay_on_their_device_and_spread_evenly() {
        let mut counts = [0; 3];
        for customer in 0..300 {
            assert_eq!(payment(customer).device(3), payment(customer).device(3));
            counts[payment(customer).device(3)] += 1;
        }
        assert!(counts.iter().all(|count| (70..130).contains(count)), "{counts:?}");
    }
}
