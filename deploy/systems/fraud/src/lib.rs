//! Card fraud: the feature view, a generator of realistic transactions, and a loader for the user's own.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tributary_features::{Event, Micros};

/// The feature view `card-risk`: 15 features, customer windows in device scope, terminal windows in fleet scope.
pub const VIEW_TOML: &str = "";

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
    /// As an event of the view; its id is `tx-<id>`.
    pub fn to_event(&self) -> Event {
        todo!()
    }
    /// When its label becomes known.
    pub fn label_known_at(&self, _delay_micros: i64) -> Micros {
        todo!()
    }
    /// On which of `devices` it happens: always the same for one customer.
    pub fn device(&self, _devices: usize) -> usize {
        todo!()
    }
}

/// What the generator makes; the defaults suit the demo.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GeneratorConfig {
    /// Decides everything.
    pub seed: u64,
    /// How many customers.
    pub customers: usize,
    /// How many terminals.
    pub terminals: usize,
    /// First midnight, UTC.
    pub start: Micros,
    /// How many days.
    pub days: u32,
    /// From this day on (0 is the first) frauds follow another pattern.
    pub change_day: Option<u32>,
}

impl Default for GeneratorConfig {
    fn default() -> Self {
        todo!()
    }
}

/// Transactions in time order, day by day.
pub struct Generator {}

impl Generator {
    /// Draws customers and terminals; the same configuration always gives the same transactions.
    pub fn new(_config: GeneratorConfig) -> Self {
        todo!()
    }
}

impl Iterator for Generator {
    type Item = Transaction;
    fn next(&mut self) -> Option<Transaction> {
        todo!()
    }
}

/// Reads transactions in time order (columns of shared/data/README or [`write_parquet`]).
pub fn load_parquet(_path: &Path) -> anyhow::Result<Vec<Transaction>> {
    todo!()
}

/// Writes transactions as Parquet.
pub fn write_parquet(_path: &Path, _transactions: &[Transaction]) -> anyhow::Result<()> {
    todo!()
}
