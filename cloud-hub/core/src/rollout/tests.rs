//! A small fleet that obeys, fails and sleeps, driven by the real planner.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::{Just, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as Arbitrary;
use tributary_stats::sequential::Arm;
use tributary_wire::{DeviceId, LineName, Micros, PackageRef, ReleaseRef, Role, Sha256, UpdaterState, VersionNumber};

use super::*;

fn release(version: u32) -> ReleaseRef {
    ReleaseRef { version: VersionNumber(version), length: 1, sha256: Sha256([version as u8; 32]) }
}

fn package(release: &ReleaseRef) -> PackageRef {
    PackageRef { version: release.version, sha256: release.sha256 }
}

fn device(number: usize) -> DeviceId {
    DeviceId::new(&format!("edge-{number}")).unwrap()
}

#[derive(Debug, Clone)]
struct Simulated {
    online: bool,
    healthy: bool,
    assigned: ReleaseRef,
    runs: ReleaseRef,
    undone: Option<(PackageRef, String)>,
    last_seen: Micros,
    pending: bool,
    /// What it lacks to run version 2, once it has been asked to.
    lacks: Option<String>,
    poor: bool,
}

struct Fleet {
    rollout: Rollout,
    devices: BTreeMap<DeviceId, Simulated>,
    now: Micros,
    evidence: Evidence,
    installed: Vec<DeviceId>,
    reasons: Vec<String>,
}

impl Fleet {
    fn new(size: usize, policy: Policy) -> Self {
        let now = Micros(1_000 * Micros::SECOND);
        let simulated = Simulated {
            online: true,
            healthy: true,
            assigned: release(1),
            runs: release(1),
            undone: None,
            last_seen: now,
            pending: false,
            lacks: None,
            poor: false,
        };
        let line = LineName::new("card-fraud").unwrap();
        Self {
            rollout: Rollout::new(7, line, Role::primary(), release(2), policy, now),
            devices: (0..size).map(|number| (device(number), simulated.clone())).collect(),
            now,
            evidence: Evidence { canary: Arm { trials: 10_000, failures: 0 }, control: Arm::default() },
            installed: Vec::new(),
            reasons: Vec::new(),
        }
    }

    fn statuses(&self) -> Vec<DeviceStatus> {
        let status = |(id, d): (&DeviceId, &Simulated)| DeviceStatus {
            device: id.clone(),
            last_seen: Some(d.last_seen),
            up_to_date: !d.pending,
            had: Some(d.assigned.clone()),
            committed: Some(package(&d.runs)),
            previous: None,
            candidate: None,
            state: UpdaterState::Committed,
            undone: d.undone.clone(),
            unfit: d.lacks.as_ref().map(|lack| (package(&release(2)), lack.clone())),
        };
        self.devices.iter().map(status).collect()
    }

    fn step(&mut self) -> Plan {
        self.now = Micros(self.now.0 + Micros::SECOND);
        let plan = plan(&self.rollout, &self.statuses(), &self.evidence, self.now);
        self.rollout.apply(&plan, self.now);
        for assign in &plan.assign {
            let simulated = self.devices.get_mut(&assign.device).expect("only known devices are assigned");
            simulated.pending = true;
            match &assign.target {
                Target::Install { .. } => {
                    simulated.assigned = self.rollout.target.clone();
                    self.installed.push(assign.device.clone());
                }
                Target::Rollback { to } => simulated.assigned = to.clone().expect("all had version 1"),
            }
        }
        self.reasons.extend(plan.reasons.iter().cloned());
        plan
    }

    /// Online devices report, and carry out what they were assigned.
    fn live(&mut self) {
        for simulated in self.devices.values_mut().filter(|d| d.online) {
            simulated.last_seen = self.now;
            if std::mem::take(&mut simulated.pending) {
                let target = simulated.assigned == self.rollout.target;
                simulated.lacks = (target && simulated.poor).then(|| "needs 64 MiB, has 32 MiB".to_owned());
                if simulated.lacks.is_some() {
                    continue;
                }
                if target && !simulated.healthy {
                    simulated.undone = Some((package(&simulated.assigned), "3 of 10 predictions failed".to_owned()));
                } else {
                    simulated.runs = simulated.assigned.clone();
                    simulated.undone = None;
                }
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            self.step();
            self.live();
        }
    }
}

fn waves(percent: &[u8]) -> Policy {
    Policy { percent: percent.to_vec(), ..Policy::default() }
}

#[test]
fn a_healthy_release_goes_out_wave_by_wave_and_completes() {
    let mut fleet = Fleet::new(20, waves(&[10, 50, 100]));
    let mut sizes = Vec::new();
    while fleet.rollout.state.is_active() {
        let assigned = fleet.step().assign.len();
        sizes.extend((assigned > 0).then_some(assigned));
        fleet.live();
    }
    assert_eq!(sizes, [2, 8, 10]);
    assert!(matches!(fleet.rollout.state, RolloutState::Completed { .. }));
    assert!(fleet.devices.values().all(|d| d.runs == release(2)));
}

#[test]
fn all_at_once_is_one_wave() {
    let mut fleet = Fleet::new(5, Policy { strategy: Strategy::All, ..Policy::default() });
    assert_eq!(fleet.step().assign.len(), 5);
    fleet.live();
    fleet.step();
    assert!(matches!(fleet.rollout.state, RolloutState::Completed { .. }));
}

#[test]
fn a_device_that_undoes_the_release_stops_it_and_everyone_goes_back() {
    let mut fleet = Fleet::new(10, waves(&[30, 100]));
    fleet.devices.values_mut().for_each(|d| d.healthy = false);
    fleet.settle();
    assert!(matches!(&fleet.rollout.state, RolloutState::Stopped { reason, .. } if reason.contains("3 of 10")));
    assert_eq!(fleet.installed.len(), 3, "the second wave never got it");
    assert!(fleet.devices.values().all(|d| d.runs == release(1) && d.assigned == release(1) && d.undone.is_none()));
}

#[test]
fn devices_that_cannot_run_the_release_are_no_failure_and_others_take_their_place_in_the_wave() {
    let mut fleet = Fleet::new(10, waves(&[30, 100]));
    fleet.step();
    let first = fleet.installed.clone();
    first.iter().for_each(|device| fleet.devices.get_mut(device).unwrap().poor = true);
    fleet.live();
    let plan = fleet.step();
    assert_eq!(plan.assign.len(), 3, "30 % of the seven that are left: {:?}", plan.reasons);
    fleet.settle();
    assert!(matches!(fleet.rollout.state, RolloutState::Completed { .. }), "{:?}", fleet.reasons);
    assert_eq!(fleet.devices.values().filter(|d| d.runs == release(2)).count(), 7);
    let said =
        fleet.reasons.iter().any(|reason| reason.contains("3 cannot run the release") && reason.contains("64 MiB"));
    assert!(said, "{:?}", fleet.reasons);
}

#[test]
fn when_no_device_can_run_the_release_it_says_so_and_pauses_in_time() {
    let mut fleet = Fleet::new(3, Policy { wave_timeout_s: 15, ..waves(&[34, 100]) });
    fleet.devices.values_mut().for_each(|d| d.poor = true);
    fleet.settle();
    let RolloutState::Paused { reason, .. } = &fleet.rollout.state else { panic!("{:?}", fleet.rollout.state) };
    assert!(reason.contains("no device can run the release: 3 of 3 are unfit"), "{reason}");
    assert!(fleet.devices.values().all(|d| d.runs == release(1)));
    fleet.devices.values_mut().for_each(|d| (d.poor, d.lacks) = (false, None));
    fleet.devices.values_mut().for_each(|d| d.pending = true);
    fleet.rollout.resume(fleet.now).unwrap();
    fleet.live();
    fleet.settle();
    assert!(matches!(fleet.rollout.state, RolloutState::Completed { .. }), "a new agent runs it: {:?}", fleet.reasons);
}

#[test]
fn a_role_that_ends_is_taken_from_everybody_who_holds_it() {
    let mut fleet = Fleet::new(4, waves(&[50, 100]));
    fleet.step();
    fleet.live();
    let now = fleet.now;
    fleet.rollout.end((0..4).map(device), "the experiment is over", now);
    let plan = plan(&fleet.rollout, &fleet.statuses(), &fleet.evidence, now);
    assert_eq!(plan.assign.len(), 4, "also those that had it before");
    assert!(plan.assign.iter().all(|assign| assign.target == Target::Rollback { to: None }));
}

#[test]
fn undoing_below_the_threshold_is_tolerated() {
    let mut fleet = Fleet::new(10, Policy { undone_max: 1, ..waves(&[50, 100]) });
    fleet.step();
    let first = fleet.installed[0].clone();
    fleet.devices.get_mut(&first).unwrap().healthy = false;
    fleet.live();
    fleet.settle();
    assert!(matches!(fleet.rollout.state, RolloutState::Completed { .. }), "{:?}", fleet.reasons);
}

#[test]
fn a_wave_waits_for_reachable_devices_only_and_late_ones_still_get_the_release() {
    let mut fleet = Fleet::new(4, waves(&[50, 100]));
    let asleep = device(2);
    fleet.devices.get_mut(&asleep).unwrap().online = false;
    fleet.devices.get_mut(&asleep).unwrap().last_seen = Micros(0);
    fleet.settle();
    assert!(matches!(fleet.rollout.state, RolloutState::Completed { .. }));
    assert_eq!(fleet.devices[&asleep].assigned, release(2), "its assignment waits for it");
    fleet.devices.get_mut(&asleep).unwrap().online = true;
    let newcomer = fleet.devices[&device(0)].clone();
    fleet.devices.insert(device(9), Simulated { runs: release(1), assigned: release(1), ..newcomer });
    fleet.settle();
    assert!(fleet.devices.values().all(|d| d.runs == release(2)));
}

#[test]
fn too_little_exposure_holds_the_next_wave_and_pauses_in_the_end() {
    let mut fleet = Fleet::new(4, Policy { wave_timeout_s: 10, ..waves(&[25, 100]) });
    fleet.evidence.canary.trials = 100;
    fleet.settle();
    assert!(matches!(&fleet.rollout.state, RolloutState::Paused { reason, .. } if reason.contains("100 of 500")));
    assert_eq!(fleet.installed.len(), 1);
    fleet.evidence.canary.trials = 1_000;
    fleet.settle();
    assert_eq!(fleet.installed.len(), 1, "only an operator resumes");
    fleet.rollout.resume(fleet.now).unwrap();
    fleet.settle();
    assert!(matches!(fleet.rollout.state, RolloutState::Completed { .. }));
}

#[test]
fn more_failures_than_beside_it_stop_the_release_even_while_paused() {
    let mut fleet = Fleet::new(4, waves(&[50, 100]));
    fleet.step();
    fleet.live();
    fleet.rollout.pause("lunch", fleet.now).unwrap();
    fleet.evidence = Evidence { canary: Arm { trials: 500, failures: 60 }, control: Arm { trials: 500, failures: 2 } };
    fleet.settle();
    assert!(matches!(&fleet.rollout.state, RolloutState::Stopped { reason, .. } if reason.contains("60 of 500")));
    assert!(fleet.devices.values().all(|d| d.runs == release(1)));
}

#[test]
fn commands_that_do_not_fit_the_state_are_refused_in_words() {
    let mut fleet = Fleet::new(3, waves(&[50, 100]));
    let now = fleet.now;
    assert_eq!(fleet.rollout.resume(now).unwrap_err().to_string(), "a rollout that is running cannot be resumed");
    assert!(fleet.rollout.supersede(8, now).is_err());
    fleet.rollout.abort("changed my mind", now).unwrap();
    assert!(fleet.rollout.abort("again", now).is_err());
    assert!(fleet.rollout.pause("late", now).is_err());
    fleet.settle();
    assert!(matches!(fleet.rollout.state, RolloutState::Stopped { .. }));
    assert!(fleet.installed.is_empty());
}

#[test]
fn an_empty_fleet_waits_for_its_first_device() {
    let mut fleet = Fleet::new(0, Policy { wave_timeout_s: 1, ..waves(&[50, 100]) });
    fleet.settle();
    assert!(matches!(fleet.rollout.state, RolloutState::Running { wave: 0, .. }));
}

#[test]
fn policies_that_cannot_end_are_refused_by_name() {
    for percent in [&[][..], &[50], &[50, 50, 100], &[0, 100]] {
        assert_eq!(waves(percent).check().unwrap_err().setting, "rollout.percent");
    }
    assert_eq!(Policy { alpha: 1.0, ..Policy::default() }.check().unwrap_err().setting, "rollout.alpha");
    assert_eq!(Policy::default().check(), Ok(()));
}

#[derive(Debug, Clone)]
enum Event {
    Step,
    Live,
    Toggle(usize),
    Sicken(usize),
    Fail,
    Pause,
    Resume,
    Abort,
}

fn events() -> impl Arbitrary<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => Just(Event::Step),
        6 => Just(Event::Live),
        2 => (0usize..12).prop_map(Event::Toggle),
        1 => (0usize..12).prop_map(Event::Sicken),
        1 => Just(Event::Fail),
        1 => Just(Event::Pause),
        1 => Just(Event::Resume),
        1 => Just(Event::Abort),
    ];
    proptest::collection::vec(event, 0..80)
}

proptest! {
    #[test]
    fn a_halted_rollout_assigns_nothing_new_and_every_device_that_took_it_goes_back(
        size in 1usize..12, percent in prop_oneof![Just(vec![10, 50, 100]), Just(vec![34, 100]), Just(vec![100])],
        events in events(),
    ) {
        let mut fleet = Fleet::new(size, waves(&percent));
        for event in events {
            let before = fleet.rollout.state.clone();
            match event {
                Event::Step => {
                    let plan = fleet.step();
                    let installs = plan.assign.iter().filter(|a| matches!(a.target, Target::Install { .. })).count();
                    prop_assert!(installs == 0 || before.allows_install(), "{before:?} installs");
                    prop_assert!(!before.is_stopped() || fleet.rollout.state.is_stopped(), "a stop is for good");
                    let unique: BTreeSet<_> = plan.assign.iter().map(|a| &a.device).collect();
                    prop_assert_eq!(unique.len(), plan.assign.len(), "one assignment per device and plan");
                }
                Event::Live => fleet.live(),
                Event::Toggle(n) => if let Some(d) = fleet.devices.get_mut(&device(n)) { d.online = !d.online },
                Event::Sicken(n) => if let Some(d) = fleet.devices.get_mut(&device(n)) { d.healthy = false },
                Event::Fail => fleet.evidence.canary.failures = 5_000,
                Event::Pause => _ = fleet.rollout.pause("test", fleet.now),
                Event::Resume => _ = fleet.rollout.resume(fleet.now),
                Event::Abort => _ = fleet.rollout.abort("test", fleet.now),
            }
        }
        // The faults end: everyone comes back and an operator resumes what is paused.
        fleet.devices.values_mut().for_each(|d| d.online = true);
        fleet.live();
        let _ = fleet.rollout.resume(fleet.now);
        fleet.settle();
        match &fleet.rollout.state {
            RolloutState::Completed { .. } => {
                let undone = |d: &Simulated| d.undone.is_some();
                prop_assert!(fleet.devices.values().all(|d| d.runs == release(2) || undone(d)));
            }
            RolloutState::Stopped { .. } => {
                prop_assert!(fleet.devices.values().all(|d| d.runs == release(1) && d.assigned == release(1)));
                prop_assert!(fleet.rollout.taken.values().all(|taken| taken.rolled_back.is_some()));
            }
            other => prop_assert!(false, "{:?} after the faults ended: {:?}", other, fleet.reasons),
        }
    }

    #[test]
    fn waves_are_deterministic_and_only_grow(size in 1usize..40, id in 0i64..1000) {
        let run = || {
            let mut fleet = Fleet::new(size, waves(&[5, 20, 60, 100]));
            fleet.rollout.id = id;
            fleet.settle();
            fleet.rollout.taken.into_iter().map(|(device, taken)| (device, taken.wave)).collect::<Vec<_>>()
        };
        let first = run();
        prop_assert_eq!(first.len(), size);
        prop_assert_eq!(first, run());
    }
}
