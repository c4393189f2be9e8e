//! Rollouts: the planner of the hub that ships, the updaters of devices that ship, over real state, real packages and
//! real signatures; everything between them breaks as a seed says.
//!
//! While it breaks, and after, promises 3 to 6 are watched (`checks`). When the faults stop, operators end what is open
//! and roll out one last good release: it must reach every device in bounded time.

mod packages;
mod download;
mod device;
mod checks;
mod record;
mod hub;
mod links;
mod faults;
mod operator;
mod figures;
mod world;
mod shell;
#[cfg(test)]
mod tests;

pub use figures::Figures;
pub use packages::Kind;
use world::World;

/// How a world is made.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Devices; by chance when left out.
    pub devices: Option<usize>,
    /// How long faults go on, in minutes; an hour when left out.
    pub minutes: Option<u64>,
    /// Show everything that happens.
    pub trace: bool,
    /// Something that is broken on purpose, to see that it is found.
    pub breakage: Option<Breakage>,
}

/// What can be broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Breakage {
    /// The hub answers devices though the rollout was stopped or paused.
    SignsAfterStop,
    /// The way back is signed without leave to lower the version.
    RollbackWithoutLeave,
    /// The hub counts generations by itself, whatever devices report.
    GenerationsBegunAnew,
    /// Devices begin trials without asking.
    SkipsTheAsk,
    /// Devices take a record for durable that was not stored.
    CommitBeforeDurable,
    /// Devices take an assignment for stored when storing failed.
    KeepsWithoutStoring,
    /// Devices fetch what the assignment says without looking into the signed repository.
    SkipsTheChain,
}

/// All of them.
pub const BREAKAGES: [Breakage; 7] = [
    Breakage::SignsAfterStop,
    Breakage::RollbackWithoutLeave,
    Breakage::GenerationsBegunAnew,
    Breakage::SkipsTheAsk,
    Breakage::CommitBeforeDurable,
    Breakage::KeepsWithoutStoring,
    Breakage::SkipsTheChain,
];

/// A world that broke a promise.
#[derive(Debug, thiserror::Error)]
#[error("at {seconds:.3} s: {what}")]
pub struct Broken {
    /// When, in seconds since the world began.
    pub seconds: f64,
    /// Which promise, and how.
    pub what: String,
}

/// Runs the world of a seed to its end.
pub fn run(seed: u64, settings: &Settings) -> Result<Figures, Broken> {
    let mut world = World::new(seed, settings);
    while !world.operator.content {
        let stepped = world.step();
        let overdue = world.overdue().map_or(Ok(()), Err);
        stepped.and(overdue).map_err(|what| Broken { seconds: world.at.as_secs_f64(), what })?;
    }
    Ok(world.end())
}
