//! `cloud-hub benchmark`: figures beside published ones, from data that the caller brings.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use cloud_hub_trainer::benchmark::{Figures, Report, Transactions, card_fraud, settings, validate};
use tributary_features::View;
use tributary_process::{out, outln};

/// Benchmarks that the command knows.
#[derive(Debug, clap::Subcommand)]
pub enum Benchmark {
    /// Trains on one published week of card payments, scores the int8 package on another, beside published results
    CardFraud(CardFraud),
}

/// Settings of `benchmark card-fraud`.
#[derive(Debug, clap::Args)]
pub struct CardFraud {
    /// The published transactions, one Parquet file (without it: says where they come from)
    #[arg(long, value_name = "FILE")]
    transactions: Option<PathBuf>,
    /// How many seeds are trained and scored
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// Only repeat the choice of settings: score them on the six earlier pairs of weeks, not on the test week
    #[arg(long)]
    choices: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

const SOURCE: &str = "\
This benchmark needs the transactions that the Fraud Detection Handbook
published, in one Parquet file.

  Data:     https://github.com/Fraud-Detection-Handbook/simulated-data-raw
            (one pickle per day, 2018-04-01 to 2018-09-30)
  Book:     https://fraud-detection-handbook.github.io/fraud-detection-handbook
            (chapters 3 and 7)
  Columns:  transaction_id, event_time (timestamp, UTC), customer_id,
            terminal_id, amount, fraud (0 or 1); rows in time order; other
            columns are ignored

Then: cloud-hub benchmark card-fraud --transactions FILE";

/// Runs a benchmark. Exit code 2 without the data.
pub fn run(benchmark: &Benchmark) -> anyhow::Result<ExitCode> {
    let Benchmark::CardFraud(args) = benchmark;
    let Some(path) = &args.transactions else {
        eprintln!("{SOURCE}");
        return Ok(ExitCode::from(2));
    };
    let view = View::from_toml(tributary_fraud::VIEW_TOML).context("the card-risk view")?;
    let transactions = replay(path, &view)?;
    if args.choices {
        return choices(args, &transactions, &view);
    }
    let seeds: Vec<u64> = (1..=args.seeds).collect();
    let report = card_fraud(&transactions, &view, &seeds, |line| eprintln!("{line}"))
        .with_context(|| format!("benchmark on {}", path.display()))?;
    if args.json {
        outln!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        out!("{}", table(&report));
    }
    Ok(ExitCode::SUCCESS)
}

fn replay(path: &Path, view: &View) -> anyhow::Result<Transactions> {
    let payments = tributary_fraud::load_parquet(path).context("read the transactions")?;
    eprintln!("{} transactions through the view {}", payments.len(), view.name());
    let stream = payments.iter().map(|payment| (payment.to_row(), payment.customer_id, payment.fraud));
    Ok(Transactions::replay(view, stream))
}

fn choices(args: &CardFraud, transactions: &Transactions, view: &View) -> anyhow::Result<ExitCode> {
    let mut runs = Vec::new();
    for seed in 1..=args.seeds {
        runs.push(validate(transactions, view, &settings(), seed).context("validate the settings")?);
    }
    if args.json {
        outln!("{}", serde_json::to_string_pretty(&runs)?);
        return Ok(ExitCode::SUCCESS);
    }
    outln!("The settings on pairs of weeks before 2018-07-25 (int8), mean over the pairs:");
    outln!("{:<32} AUC ROC  average precision  card precision@100", "");
    for (seed, pairs) in (1..).zip(&runs) {
        outln!("{:<32} {}", format!("seed {seed}"), row(&Figures::mean(pairs)));
    }
    Ok(ExitCode::SUCCESS)
}

/// The report for people.
fn table(report: &Report) -> String {
    let mut text = String::new();
    let model = &report.settings;
    let hidden = model.hidden.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "Card fraud, trained on 2018-07-25..07-31 ({} rows),\n\
         tested on 2018-08-08..08-14 ({} rows).\n\n\
         Chosen on weeks that end before 2018-07-25 (see --choices):\n\
         {} nets of {hidden} hidden units in one graph, {} epochs of batches of {},\n\
         learning rate {}, weight decay {}, dropout {}, weight of a positive {};\n\
         skewed features also as logarithm or root, clipped at {} deviations;\n\
         threshold by best F1.\n",
        report.training_rows,
        report.test_rows,
        model.members,
        model.epochs,
        model.batch,
        model.learning_rate,
        model.weight_decay,
        model.dropout,
        model.positive_weight,
        model.clip,
    );
    let _ = writeln!(text, "{:<32} AUC ROC  average precision  card precision@100", "");
    for (name, auc, average, card) in report.published {
        let name = format!("{name} (published)");
        let _ = writeln!(text, "{name:<32} {auc:<7.3}  {average:<17.3}  {card:.3}");
    }
    for seed in &report.seeds {
        let _ = writeln!(text, "{:<32} {}", format!("{} package, seed {}", seed.serve, seed.seed), row(&seed.test));
    }
    let _ = writeln!(text, "{:<32} {}", "mean over seeds", row(&report.mean));
    let _ = writeln!(text, "{:<32} {}", "standard deviation over seeds", row(&report.spread));
    for seed in &report.seeds {
        let _ = writeln!(text, "{:<32} {}", format!("f32 graph, seed {}", seed.seed), row(&seed.test_f32));
    }
    let _ = writeln!(
        text,
        "\nThe packages were read back and run by the device's engine. With the threshold\n\
         from the earlier week:\n\n  seed   bytes  threshold  alarms  right  frauds found"
    );
    for seed in &report.seeds {
        let [alarms, right, found] = [seed.alarm_share, seed.precision, seed.recall].map(|share| 100.0 * share);
        let (number, bytes, threshold) = (seed.seed, seed.package_bytes, seed.threshold);
        let _ =
            writeln!(text, "  {number:<4}  {bytes:>6}  {threshold:<9.3}  {alarms:.2} %  {right:.0} %   {found:.0} %");
    }
    text
}

fn row(figures: &Figures) -> String {
    let Figures { auc_roc, average_precision, card_precision, .. } = figures;
    format!("{auc_roc:<7.4}  {average_precision:<17.4}  {card_precision:.4}")
}

#[cfg(test)]
mod tests {
    use cloud_hub_trainer::benchmark::{PUBLISHED, SeedResult};

    use super::*;

    #[test]
    fn the_report_fits_into_eighty_columns() {
        let figures = Figures { auc_roc: 0.87, average_precision: 0.67, card_precision: 0.29 };
        let seed = |seed| SeedResult {
            seed,
            test: figures,
            test_f32: figures,
            validation: figures,
            threshold: 0.25,
            alarm_share: 0.0044,
            precision: 1.0,
            recall: 0.57,
            serve: "int8".to_owned(),
            package_bytes: 317_952,
        };
        let report = Report {
            training_rows: 67_240,
            test_rows: 58_264,
            settings: settings(),
            seeds: vec![seed(1), seed(100)],
            mean: figures,
            spread: Figures::default(),
            published: PUBLISHED,
        };
        let text = table(&report);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("weight of a positive 1;"), "{text}");
        assert!(text.contains("int8 package, seed 100           0.8700   0.6700             0.2900\n"), "{text}");
    }
}
