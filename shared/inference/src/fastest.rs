//! Which engine serves a package: the fastest of those that agree with its golden cases.

use std::time::Duration;

use tributary_release::Package;

use crate::{Engine, GoldenMismatch, check_golden};

/// Timed calls per engine. The median of so many is steady, and on a small model they take a millisecond.
const TIMED_CALLS: usize = 51;

/// How one engine did.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Its name.
    pub engine: &'static str,
    /// Median time of one prediction, or why it must not serve.
    pub outcome: Result<Duration, GoldenMismatch>,
}

/// The engine that serves, and how all did.
pub struct Choice {
    /// The fastest that agrees with the golden cases.
    pub engine: Box<dyn Engine>,
    /// All that were tried, in the order given.
    pub candidates: Vec<Candidate>,
}

/// No engine may serve the package.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("no engine agrees with the golden cases{}", each(candidates))]
pub struct NoEngine {
    /// All that were tried.
    pub candidates: Vec<Candidate>,
}

fn each(candidates: &[Candidate]) -> String {
    let refusals =
        candidates.iter().filter_map(|candidate| Some((candidate.engine, candidate.outcome.as_ref().err()?)));
    refusals.map(|(engine, why)| format!("; {engine}: {why}")).collect()
}

/// Checks every engine against the golden cases, times those that pass on single rows, and keeps the fastest; the first
/// wins a tie. `clock` gives monotonic time.
pub fn pick_fastest(
    engines: Vec<Box<dyn Engine>>,
    package: &Package,
    clock: &dyn Fn() -> Duration,
) -> Result<Choice, NoEngine> {
    let mut candidates = Vec::new();
    let mut best: Option<(Duration, Box<dyn Engine>)> = None;
    for engine in engines {
        let outcome = check_golden(&*engine, package).and_then(|_| time(&*engine, package, clock));
        candidates.push(Candidate { engine: engine.name(), outcome: outcome.clone() });
        if let Ok(time) = outcome
            && best.as_ref().is_none_or(|(least, _)| time < *least)
        {
            best = Some((time, engine));
        }
    }
    match best {
        Some((_, engine)) => Ok(Choice { engine, candidates }),
        None => Err(NoEngine { candidates }),
    }
}

fn time(engine: &dyn Engine, package: &Package, clock: &dyn Fn() -> Duration) -> Result<Duration, GoldenMismatch> {
    let mut out = Vec::new();
    let mut times = Vec::with_capacity(TIMED_CALLS);
    for golden in package.golden.iter().cycle().take(TIMED_CALLS) {
        let start = clock();
        engine.predict(&golden.features, 1, &mut out)?;
        times.push(clock().saturating_sub(start));
    }
    times.sort_unstable();
    Ok(times[TIMED_CALLS / 2])
}
