//! Packages before and after a retraining, all made by the hub's trainer from generated payments.

use std::fs;
use std::path::Path;

use anyhow::Context;
use cloud_hub_trainer::{ModelSpec, PACKAGE_FILE, RunSpec, SPEC_FILE, Step, Trained, WarmStart, run};
use tributary_features::View;
use tributary_fraud::{Generator, GeneratorConfig, VIEW_TOML};
use tributary_wire::{Micros, VersionNumber};

use crate::package::{DAYS, spec, write_dataset};

/// What comes between two trainings.
const LATER_DAYS: i64 = 7;

/// A net that is trained.
#[derive(Debug, Clone, Copy)]
pub struct Net {
    hidden: [usize; 2],
    members: usize,
    epochs: usize,
    customers: usize,
}

/// The size that ships, and one of some megabytes.
pub const NETS: [Net; 2] = [
    Net { hidden: [64, 32], members: 2, epochs: 6, customers: 600 },
    Net { hidden: [1024, 768], members: 1, epochs: 2, customers: 100 },
];

/// As small as it gets, for tests.
#[cfg(test)]
pub const TINY: Net = Net { hidden: [16, 8], members: 1, epochs: 1, customers: 150 };

/// One retraining.
pub struct Retrained {
    /// Which kind.
    pub kind: &'static str,
    /// The package before.
    pub old: Vec<u8>,
    /// The package after.
    pub new: Vec<u8>,
}

impl Net {
    /// As in the table.
    pub fn name(&self) -> String {
        let Self { hidden: [first, second], members, .. } = self;
        format!("net {first}-{second}-1, {members} side by side")
    }
}

/// The first training, and three more a week of payments later.
pub fn all(net: Net, folder: &Path) -> anyhow::Result<Vec<Retrained>> {
    let view = View::from_toml(VIEW_TOML).context("the card-risk view")?;
    let config = GeneratorConfig {
        customers: net.customers,
        terminals: 200,
        days: DAYS + LATER_DAYS as u32,
        ..GeneratorConfig::default()
    };
    let day = |number: i64| Micros(config.start.0 + number * Micros::DAY);
    let (end, later) = (day(i64::from(DAYS)), day(LATER_DAYS));
    let payments: Vec<_> = Generator::new(config).collect();
    let before: Vec<_> = payments.iter().filter(|payment| payment.time < end).cloned().collect();
    let after: Vec<_> = payments.into_iter().filter(|payment| payment.time >= later).collect();
    write_dataset(&folder.join("before.parquet"), &view, &before)?;
    write_dataset(&folder.join("after.parquet"), &view, &after)?;
    let model =
        ModelSpec { hidden: net.hidden.to_vec(), members: net.members, epochs: net.epochs, ..Default::default() };
    let first = RunSpec { dataset: "before.parquet".into(), model: model.clone(), ..spec(end)? };
    let old = trained(&first, folder)?;
    let start = folder.join("start.tpk");
    fs::write(&start, &old)?;
    let again = RunSpec { dataset: "after.parquet".into(), version: VersionNumber(2), seed: 2, ..first };
    // Few and small steps: what a nightly run does with a week more of labels.
    let further = ModelSpec { epochs: 2, learning_rate: 1e-3, ..model };
    let warm = |trained| {
        let start = Some(WarmStart { package: start.clone(), trained, optional: false });
        RunSpec { model: further.clone(), start, ..again.clone() }
    };
    let kinds = [
        ("last layer only", warm(Trained::LastLayer)),
        ("warm start, 2 epochs", warm(Trained::All)),
        ("from scratch", again.clone()),
    ];
    kinds
        .into_iter()
        .map(|(kind, spec)| Ok(Retrained { kind, old: old.clone(), new: trained(&spec, folder)? }))
        .collect()
}

fn trained(spec: &RunSpec, folder: &Path) -> anyhow::Result<Vec<u8>> {
    fs::write(folder.join(SPEC_FILE), serde_json::to_vec(spec)?).context("write the run")?;
    run(folder, &mut |_: &Step| true).context("train a package")?;
    fs::read(folder.join(PACKAGE_FILE)).context("read the package")
}
