//! Moving a fleet to a release: all at once or in waves, with a gate between waves and a way back.
//!
//! [`plan`] is the only place where a rollout decides. It takes what is stored and what was reported and gives the
//! next state, the devices to assign and the reasons; the driver stores the plan ([`Rollout::apply`]), then acts.

mod policy;
mod state;
mod gate;
mod plan;
mod fleet;
pub mod restored;
mod patches;
pub mod assignments;

pub use fleet::{Counters, Known, Member, Step, advance, baseline, evidence, labels, outlook, statuses};
pub use gate::{Evidence, Gate, gate};
pub use plan::{Assign, DeviceStatus, Plan, Target, plan};
pub use policy::{Policy, Strategy};
pub use restored::Restored;
pub use state::{CommandError, Rollout, RolloutState, Taken};

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
