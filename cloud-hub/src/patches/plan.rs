//! Which patches are to be made and which are to go. Pure.

use std::collections::BTreeMap;

use tributary_wire::{Micros, Sha256};

use super::Config;
use super::store::{State, Stored};

/// A patch must save a tenth of what the package costs without it.
const WORTH: f64 = 0.9;
/// What failed is tried again after this.
const AGAIN: i64 = 3_600 * Micros::SECOND;

/// A release that devices are on their way to, or soon may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub sha256: Sha256,
    pub length: u64,
    /// Packages that devices hold which do not run it yet, and how many devices that are.
    pub held: BTreeMap<Sha256, usize>,
}

/// A patch to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Job {
    pub to: Sha256,
    pub length: u64,
    pub from: Option<Sha256>,
}

impl Target {
    /// The packages that patches start from: those on most devices.
    fn bases(&self, config: &Config) -> Vec<Sha256> {
        let mut bases: Vec<_> = self.held.iter().filter(|(base, _)| **base != self.sha256).collect();
        bases.sort_by_key(|(base, devices)| (std::cmp::Reverse(**devices), **base));
        bases.into_iter().take(config.bases).map(|(base, _)| *base).collect()
    }

    fn jobs(&self, config: &Config) -> Vec<Job> {
        let job = |from| Job { to: self.sha256, length: self.length, from };
        // First the compressed whole: it is what a patch is measured by.
        std::iter::once(None).chain(self.bases(config).into_iter().map(Some)).map(job).collect()
    }
}

/// How many patches to a release are still to be made: what [`next`] would give one after the other.
pub(super) fn open(target: &Target, known: &[Stored], config: &Config, now: Micros) -> usize {
    if !config.enabled || target.length > config.largest_package.0 {
        return 0;
    }
    target.jobs(config).iter().filter(|job| !settled(job, known, now)).count()
}

fn settled(job: &Job, known: &[Stored], now: Micros) -> bool {
    let found = known.iter().find(|stored| stored.is(job));
    found.is_some_and(|stored| stored.state != State::Failed || now.0 < stored.made + AGAIN)
}

/// The next patch to make.
pub(super) fn next(targets: &[Target], known: &[Stored], config: &Config, now: Micros) -> Option<Job> {
    let fits = |target: &&Target| target.length <= config.largest_package.0;
    targets.iter().filter(fits).flat_map(|target| target.jobs(config)).find(|job| !settled(job, known, now))
}

/// What nobody needs any more.
pub(super) fn unneeded<'a>(targets: &[Target], known: &'a [Stored], config: &Config) -> Vec<&'a Stored> {
    let jobs: Vec<Job> = targets.iter().flat_map(|target| target.jobs(config)).collect();
    known.iter().filter(|stored| !jobs.iter().any(|job| stored.is(job))).collect()
}

/// Why a patch of this length is not kept, if so.
pub(super) fn refused(job: &Job, length: u64, known: &[Stored], config: &Config) -> Option<(State, String)> {
    let whole = known.iter().find(|stored| stored.target == job.to.to_string() && stored.base.is_empty());
    let compressed = whole.filter(|stored| stored.state == State::Made).map(|stored| stored.length as u64);
    let (other, name) = match compressed {
        Some(length) if job.from.is_some() => (length, "compressed"),
        _ => (job.length, "whole"),
    };
    let share = length as f64 / other.max(1) as f64;
    if share >= WORTH {
        let percent = share * 100.0;
        return Some((
            State::Skipped,
            format!("not worth it: {percent:.0} % of the {other} bytes of the {name} package"),
        ));
    }
    let used: u64 = known.iter().filter(|stored| stored.state == State::Made).map(|stored| stored.length as u64).sum();
    let disk = config.disk.0;
    (used + length > disk).then(|| {
        (
            State::Failed,
            format!("no room: patches take {used} bytes, {length} more would pass the {disk} of patches.disk"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(byte: u8) -> Sha256 {
        Sha256([byte; 32])
    }

    fn target(to: u8, held: &[(u8, usize)]) -> Target {
        let held = held.iter().map(|(base, devices)| (hash(*base), *devices)).collect();
        Target { sha256: hash(to), length: 1000, held }
    }

    fn stored(job: &Job, state: State, length: i64) -> Stored {
        Stored {
            target: job.to.to_string(),
            base: job.from.map_or(String::new(), |base| base.to_string()),
            format: "aligned".to_owned(),
            state,
            length,
            sha256: String::new(),
            reason: String::new(),
            seconds: 0.0,
            made: 0,
        }
    }

    #[test]
    fn first_the_compressed_whole_then_from_what_most_devices_hold() {
        let config = Config { bases: 2, ..Config::default() };
        let targets = [target(9, &[(1, 3), (2, 7), (3, 1), (9, 50)])];
        let mut known = Vec::new();
        let mut made = Vec::new();
        while let Some(job) = next(&targets, &known, &config, Micros(0)) {
            known.push(stored(&job, if made.is_empty() { State::Made } else { State::Skipped }, 10));
            made.push(job.from);
        }
        assert_eq!(made, [None, Some(hash(2)), Some(hash(1))]);
        assert!(unneeded(&targets, &known, &config).is_empty());
        // Devices move on: nobody holds 2 any more.
        let targets = [target(9, &[(1, 3)])];
        assert_eq!(unneeded(&targets, &known, &config), [&known[1]]);
        assert_eq!(unneeded(&[], &known, &config).len(), 3);
    }

    #[test]
    fn what_failed_is_tried_again_later_and_large_packages_get_none() {
        let config = Config::default();
        let targets = [target(9, &[])];
        let job = next(&targets, &[], &config, Micros(0)).unwrap();
        let known = [stored(&job, State::Failed, 0)];
        assert_eq!(next(&targets, &known, &config, Micros(AGAIN - 1)), None);
        assert_eq!(next(&targets, &known, &config, Micros(AGAIN)), Some(job));
        let small = Config { largest_package: tributary_process::config::ByteSize(999), ..Config::default() };
        assert_eq!(next(&targets, &[], &small, Micros(0)), None);
        assert_eq!((open(&targets[0], &[], &config, Micros(0)), open(&targets[0], &[], &small, Micros(0))), (1, 0));
        assert_eq!(open(&targets[0], &known, &config, Micros(AGAIN - 1)), 0, "what failed is not waited for");
        let off = Config { enabled: false, ..Config::default() };
        assert_eq!(open(&targets[0], &[], &off, Micros(0)), 0);
    }

    #[test]
    fn a_patch_that_saves_little_is_not_kept() {
        let config = Config { disk: tributary_process::config::ByteSize(1_200), ..Config::default() };
        let job = |from| Job { to: hash(9), length: 1000, from };
        let (whole, patch) = (job(None), job(Some(hash(1))));
        let said = |job: &Job, length, known: &[Stored]| refused(job, length, known, &config).map(|(_, reason)| reason);
        assert_eq!(said(&whole, 899, &[]), None);
        assert_eq!(said(&whole, 900, &[]).unwrap(), "not worth it: 90 % of the 1000 bytes of the whole package");
        let known = [stored(&whole, State::Made, 800)];
        assert_eq!(said(&patch, 719, &known[..0]), None);
        assert_eq!(said(&patch, 720, &known).unwrap(), "not worth it: 90 % of the 800 bytes of the compressed package");
        assert_eq!(said(&patch, 400, &known), None);
        let (state, reason) = refused(&patch, 401, &known, &config).unwrap();
        assert!(state == State::Failed && reason.contains("no room"), "{reason}");
    }
}
