//! The features of the view `card-risk` against computations that are not ours.

use std::io::Write;
use std::path::Path;

use tributary_features::{EntityKey, Micros, Replay, View};
use tributary_fraud::{Generator, GeneratorConfig, Transaction, VIEW_TOML, each_transaction};

const GOLDEN: &str = include_str!("../golden/golden.csv");

/// Cells of one row of the golden file by column name.
struct Golden<'text> {
    names: Vec<&'text str>,
    cells: Vec<&'text str>,
}

impl Golden<'_> {
    fn number<T: std::str::FromStr>(&self, name: &str) -> T {
        let at = self.names.iter().position(|other| *other == name).unwrap_or_else(|| panic!("no column {name}"));
        self.cells[at].parse().ok().unwrap_or_else(|| panic!("{name} is {}", self.cells[at]))
    }
}

fn golden() -> Vec<Golden<'static>> {
    let names: Vec<_> = GOLDEN.lines().next().unwrap().split(',').collect();
    GOLDEN.lines().skip(1).map(|line| Golden { names: names.clone(), cells: line.split(',').collect() }).collect()
}

#[test]
fn features_agree_with_the_python_script_beside_the_golden_file() {
    let view = View::from_toml(VIEW_TOML).unwrap();
    let (mut replay, mut out) = (Replay::new(&view), vec![0.0; view.features().len()]);
    let mut seen = vec![false; out.len()];
    for row in golden() {
        let payment = Transaction {
            id: row.number("transaction_id"),
            time: Micros(row.number("event_time")),
            customer_id: row.number("customer_id"),
            terminal_id: row.number("terminal_id"),
            amount: row.number("amount"),
            fraud: row.number::<u8>("fraud") == 1,
            scenario: row.number("scenario"),
        };
        replay.observe(&view.row(&payment.to_event()).unwrap(), payment.fraud, &mut out);
        for (at, name) in view.feature_names().iter().enumerate() {
            let expected: f64 = row.number(name);
            let difference = (f64::from(out[at]) - expected).abs();
            assert!(difference <= 1e-6 * expected.abs().max(1.0), "{name} of {}: {} {expected}", payment.id, out[at]);
            seen[at] |= expected != 0.0;
        }
    }
    assert!(seen.iter().all(|seen| *seen), "every feature has a value somewhere");
}

#[test]
fn the_generator_still_makes_the_payments_of_the_golden_file() {
    let config = GeneratorConfig { seed: 20, days: 48, customers: 3, terminals: 2, ..GeneratorConfig::default() };
    let payments: Vec<_> = Generator::new(config).collect();
    let golden = golden();
    assert_eq!(payments.len(), golden.len());
    for (payment, row) in payments.iter().zip(golden) {
        assert_eq!(payment.id, row.number::<i64>("transaction_id"));
        assert_eq!(payment.time.0, row.number::<i64>("event_time"));
        assert_eq!(payment.terminal_id, row.number::<i64>("terminal_id"));
        assert_eq!(payment.amount as f32, row.number::<f32>("amount"));
        assert_eq!(payment.scenario, row.number::<u8>("scenario"));
    }
}

/// The published transactions are not part of this repository: `TRIBUTARY_TRANSACTIONS` names the file.
#[test]
fn the_published_transactions_give_the_published_rows_and_sane_features() {
    let Some(path) = std::env::var_os("TRIBUTARY_TRANSACTIONS") else {
        // Written past the test harness, which keeps what passing tests print to itself.
        let _ = writeln!(std::io::stderr(), "SKIPPED: TRIBUTARY_TRANSACTIONS does not name card-transactions.parquet");
        return;
    };
    let view = View::from_toml(VIEW_TOML).unwrap();
    let (mut replay, mut out) = (Replay::new(&view), vec![0.0; view.features().len()]);
    // 2018-09-15: an independent look at every payment again, for the last half month only, because it is slow.
    let (from, sample) = (Micros(1_536_969_600_000_000), 997);
    let (mut payments, mut compared) = (Vec::new(), 0);
    each_transaction(Path::new(&path), |payment| {
        replay.observe(&payment.to_row(), payment.fraud, &mut out);
        payments.push(payment);
        if payments.len() % sample == 0 && payments[payments.len() - 1].time > from {
            compare(&view, &payments, &out);
            compared += 1;
        }
    })
    .unwrap();
    assert_eq!(payments.len(), 1_754_155);
    assert!(compared > 100, "{compared} rows were compared");
}

fn compare(view: &View, payments: &[Transaction], out: &[f32]) {
    let last = &payments[payments.len() - 1];
    let near = payments.partition_point(|payment| payment.time.0 <= last.time.0 - 40 * Micros::DAY);
    let inside = |key: EntityKey, days: i64, delay: i64| {
        let end = last.time.0 - delay * Micros::DAY;
        let start = end - days * Micros::DAY;
        let of_entity = move |payment: &&Transaction| match (delay, &key) {
            (0, EntityKey::Int(customer)) => payment.customer_id == *customer,
            (_, EntityKey::Int(terminal)) => payment.terminal_id == *terminal,
            _ => false,
        };
        payments[near..].iter().filter(of_entity).filter(move |p| p.time.0 > start && p.time.0 <= end)
    };
    for (at, feature) in view.features().iter().enumerate() {
        let days = feature.name.rsplit('_').next().and_then(|days| days.strip_suffix('d')?.parse().ok()).unwrap_or(0);
        let own = || inside(EntityKey::Int(last.customer_id), days, 0);
        let there = || inside(EntityKey::Int(last.terminal_id), days, 7);
        let expected = match feature.name.as_str() {
            name if name.starts_with("customer_count") => own().count() as f64,
            name if name.starts_with("customer_mean") => {
                own().map(|payment| payment.amount).sum::<f64>() / own().count() as f64
            }
            name if name.starts_with("terminal_count") => there().count() as f64,
            name if name.starts_with("terminal_fraud") => {
                there().filter(|payment| payment.fraud).count() as f64 / (there().count() as f64).max(1.0)
            }
            _ => continue,
        };
        let difference = (f64::from(out[at]) - expected).abs();
        assert!(difference <= 1e-6 * expected.max(1.0), "{} of {}: {} {expected}", feature.name, last.id, out[at]);
    }
}
