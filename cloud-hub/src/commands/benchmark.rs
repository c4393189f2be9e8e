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
This benchmark needs the transactions that the Fraud Detection Handbook published, in one Parquet file.

  Data:     https://github.com/Fraud-Detection-Handbook/simulated-data-raw (one pickle per day, 2018-04-01 to 2018-09-30)
  Book:     https://fraud-detection-handbook.github.io/fraud-detection-handbook (chapters 3 and 7)
  Columns:  transaction_id, event_time (timestamp, UTC), customer_id, terminal_id, amount, fraud (0 or 1);
            rows in time order; other columns are ignored

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
    outln!("The settings on pairs of weeks before 2018-07-25 (int8), one line per seed, mean over the pairs:");
    for (seed, pairs) in (1..).zip(&runs) {
        outln!("  seed {seed:<3} {}", row(&Figures::mean(pairs)));
    }
    Ok(ExitCode::SUCCESS)
}

/// The report for people.
fn table(report: &Report) -> String {
    let mut text = String::new();
    let model = &report.settings;
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "Card fraud, trained on 2018-07-25..07-31 ({} rows), tested on 2018-08-08..08-14 ({} rows)\n\n\
         Chosen on weeks that end before 2018-07-25 (see --choices): {} nets of {:?} hidden units in one graph,\n\
         {} epochs of batches of {}, learning rate {}, weight decay {}, dropout {}, positive weight {:?},\n\
         skewed features also as logarithm or root, clipped at {} deviations; threshold by best F1.\n",
        report.training_rows,
        report.test_rows,
        model.members,
        model.hidden,
        model.epochs,
        model.batch,
        model.learning_rate,
        model.weight_decay,
        model.dropout,
        model.positive_weight,
        model.clip,
    );
    let _ = writeln!(text, "{:<34} AUC ROC   avg. precision   card precision@100", "");
    for (name, auc, average, card) in report.published {
        let _ = writeln!(text, "{name:<34} {auc:.3}     {average:.3}            {card:.3}        (published)");
    }
    for seed in &report.seeds {
        let name = format!("{} package, seed {}", seed.serve, seed.seed);
        let _ = writeln!(text, "{name:<34} {}", row(&seed.test));
    }
    let _ = writeln!(text, "{:<34} {}", "mean over seeds", row(&report.mean));
    let _ = writeln!(text, "{:<34} {}", "standard deviation over seeds", row(&report.spread));
    let _ = writeln!(text, "\nThe packages were read back and run by the device's engine. Per seed:");
    for seed in &report.seeds {
        let _ = writeln!(
            text,
            "  seed {}: {} bytes; f32 graph {}; threshold {:.3} from the earlier week: alarms on {:.2} % of payments, \
             {:.0} % of them right, {:.0} % of frauds found",
            seed.seed,
            seed.package_bytes,
            row(&seed.test_f32),
            seed.threshold,
            100.0 * seed.alarm_share,
            100.0 * seed.precision,
            100.0 * seed.recall,
        );
    }
    text
}

fn row(figures: &Figures) -> String {
    format!("{:.4}    {:.4}           {:.4}", figures.auc_roc, figures.average_precision, figures.card_precision)
}
