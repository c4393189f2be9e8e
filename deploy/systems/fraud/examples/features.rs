//! Writes payments with their features as CSV, for tools that are not ours to compute again and compare.
//!
//! `features OUT.csv FILE.parquet` reads payments; `features OUT.csv '{"days": 40}'` generates them.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use tributary_features::{Replay, View};
use tributary_fraud::{Generator, Transaction, VIEW_TOML, each_transaction};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [out, from] = arguments.as_slice() else { return Err("usage: features OUT.csv FILE.parquet|CONFIG".into()) };
    let view = View::from_toml(VIEW_TOML)?;
    let mut file = BufWriter::new(File::create(out)?);
    writeln!(
        file,
        "transaction_id,event_time,customer_id,terminal_id,fraud,scenario,{}",
        view.feature_names().join(",")
    )?;
    let mut replay = Replay::new(&view);
    let mut features = vec![0.0; view.features().len()];
    let mut problem = None;
    let mut write = |payment: Transaction| {
        replay.observe(&payment.to_row(), payment.fraud, &mut features);
        let Transaction { id, time, customer_id, terminal_id, fraud, scenario, .. } = payment;
        let cells: Vec<_> = features.iter().map(|value| value.to_string()).collect();
        let (time, fraud, cells) = (time.0, i8::from(fraud), cells.join(","));
        let line = writeln!(file, "{id},{time},{customer_id},{terminal_id},{fraud},{scenario},{cells}");
        problem = problem.take().or(line.err());
    };
    if Path::new(from).exists() {
        each_transaction(Path::new(from), write)?;
    } else {
        Generator::new(serde_json::from_str(from)?).for_each(&mut write);
    }
    problem.map_or(Ok(()), |problem| Err(problem.into()))
}
