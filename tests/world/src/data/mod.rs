//! From the source's event to the file in the lake: promises 1, 2 and 7.

mod breaking;
mod checks;
mod device;
mod hub;
mod served;
mod setup;
mod source;
mod steps;
mod watch;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tributary_features::View;
use tributary_wire::DeviceId;

use crate::clock::WorldClock;
use crate::faults::{Fault, Faults};
use crate::figures::Run;
use crate::network::{Machine, Network};
use crate::schedule::Schedule;
use crate::trace::Trace;
use checks::{Earlier, Tally};
use device::Device;
use hub::Hub;
pub use setup::{Breakage, Options};

const HUB: Machine = 0;
/// Most devices that a seed asks for.
const DEVICES: usize = 8;
/// When the faults stop.
const PEACE_AT: Duration = Duration::from_secs(2 * 3600);
/// After the last fault, everything is at rest within this time.
const REST: Duration = Duration::from_secs(2 * 3600);

/// Once in so many steps the whole lake is looked at, which is dear.
const DEAR: u64 = 500;

enum Happening {
    /// The source of a device brings events.
    Bring(usize),
    /// The pipeline of a device has something to do.
    Pipeline(usize),
    /// The link of a device has something to do.
    Link(usize),
    /// A device tries to connect.
    Connect(usize),
    /// A device notices that its connection is gone.
    Notice(usize),
    /// A batch arrives at the hub.
    Up(usize, Vec<u8>),
    /// A receipt arrives at a device.
    Down(usize, Vec<u8>),
    /// The hub has something to do.
    Hub,
    /// A slow hub has committed what it took up.
    Committed,
    /// The hub has power again.
    HubStarts,
    /// A device that could not read its state tries again.
    DeviceStarts(usize),
    /// Something goes wrong.
    Fault,
    /// A disk works again: the hub's, or of a device.
    Mend(Machine),
    /// What rotted in the lake is put back.
    RotMended,
    /// A wall clock is right again: the hub's, or of a device.
    ClockRight(Machine),
    /// No more faults from now on.
    Peace,
}

struct World {
    clock: WorldClock,
    schedule: Schedule<Happening>,
    network: Network,
    faults: Faults,
    trace: Trace,
    chance: StdRng,
    view: View,
    devices: Vec<Device>,
    hub: Hub,
    /// When the hub has something to do next, so that one such moment is planned at a time.
    hub_wakes: Duration,
    /// When each link is to be woken next, so that one wake is planned at a time.
    wakes: Vec<Duration>,
    connecting: Vec<bool>,
    /// Messages of each device on their way to the hub.
    travelling: Vec<u64>,
    /// Until when the disk of each device keeps it from everything else.
    busy: Vec<Duration>,
    fault_every: Duration,
    /// How often each fault comes, compared with the others.
    weights: &'static [(Fault, u32)],
    peace: bool,
    /// How often the hub started.
    hub_starts: u64,
    tally: Tally,
    earlier: Earlier,
}

/// Runs the world of a seed to its end.
pub fn run(seed: u64, options: Options) -> Result<Run> {
    let mut world = World::new(seed, options)?;
    let mut steps = 0;
    loop {
        let (at, what) = world.schedule.pop()?;
        world.clock.set(at);
        steps += 1;
        world.step(what).with_context(|| format!("step {steps}, after {at:?}"))?;
        if steps % DEAR == 0 && world.hub.is_up() {
            world.check_often().with_context(|| format!("step {steps}, after {at:?}"))?;
        }
        if world.peace && world.is_at_rest()? {
            break;
        }
        ensure!(at < PEACE_AT + REST, "not at rest {REST:?} after the last fault: {}", world.unrest()?);
    }
    world.check_end().context("at the end")?;
    let Tally { accepted, found, dropped, corrupt, left_out, replaced } = world.tally;
    let time = world.clock.now();
    let lived = time * world.devices.len() as u32;
    for path in world.hub.lake_files()? {
        world.note(format_args!("the lake has {path}"));
    }
    let (trace, held, busiest) = (world.trace.hash(), world.hub.held, world.schedule.busiest());
    let mut faults = world.faults;
    faults.count_harm(world.hub.harm());
    world.devices.iter().for_each(|device| faults.count_harm(device.harm()));
    Ok(Run { steps, busiest, time, lived, held, accepted, found, dropped, corrupt, left_out, replaced, faults, trace })
}

impl World {
    fn new(seed: u64, options: Options) -> Result<Self> {
        let mut chance = StdRng::seed_from_u64(seed);
        let view = View::from_toml(tributary_fraud::VIEW_TOML)?;
        let clock = WorldClock::default();
        let network = Network::new(StdRng::from_rng(&mut chance));
        // Many small worlds find more than few large ones.
        let drawn = if chance.random_bool(0.1) { chance.random_range(3..=DEVICES) } else { chance.random_range(1..3) };
        let mut devices = Vec::new();
        for number in 0..options.devices.unwrap_or(drawn) {
            let events = source::payments(seed, number, &view, 5..40, &mut chance);
            let id = DeviceId::new(&format!("edge-{number}"))?;
            let chance = StdRng::from_rng(&mut chance);
            let clock = clock.of_another_machine();
            devices.push(Device::new(id, clock, &view, events, chance, options.breakage)?);
        }
        ensure!(!devices.is_empty(), "a world without devices shows nothing");
        let mut world = Self {
            hub: Hub::new(clock.of_another_machine(), StdRng::from_rng(&mut chance), options.breakage)?,
            clock,
            schedule: Schedule::default(),
            network,
            faults: Faults::default(),
            trace: Trace::new(options.shown),
            wakes: vec![Duration::MAX; devices.len()],
            connecting: vec![false; devices.len()],
            travelling: vec![0; devices.len()],
            busy: vec![Duration::ZERO; devices.len()],
            fault_every: breaking::every(options.breakage, &mut chance),
            weights: breaking::weights(options.breakage),
            view,
            devices,
            chance,
            hub_wakes: Duration::MAX,
            peace: false,
            hub_starts: 0,
            tally: Tally::default(),
            earlier: Earlier::default(),
        };
        for device in 0..world.devices.len() {
            let setup = world.devices[device].setup.clone();
            world.note(format_args!("edge-{device}: {setup:?}"));
            world.plan(Duration::ZERO, Happening::Bring(device));
            world.plan(Duration::ZERO, Happening::Pipeline(device));
            world.attempt(device, Duration::ZERO);
            world.plan_clock(device);
        }
        world.plan(Duration::ZERO, Happening::Fault);
        world.plan(PEACE_AT, Happening::Peace);
        Ok(world)
    }

    fn now(&self) -> Duration {
        self.clock.now()
    }

    fn plan(&mut self, after: Duration, what: Happening) {
        self.schedule.plan(self.clock.now() + after, what);
    }

    fn note(&mut self, what: std::fmt::Arguments<'_>) {
        self.trace.note(self.clock.now(), what);
    }

    fn up_to(&mut self, longest: Duration) -> Duration {
        Duration::from_micros(self.chance.random_range(0..=longest.as_micros() as u64))
    }
}
