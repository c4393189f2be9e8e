//! Random stories with a crash at every point.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Assign { version: u32, allow_lower: bool, lives: bool },
    Unassign,
    Confirm,
    Online(bool),
    Persist,
    PersistFails,
    Fetch,
    FetchFails(FetchFailure),
    Serve,
    ServeFails,
    Evidence(TrialReport),
    Advance(u64),
    Crash,
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    let failure =
        prop_oneof![Just(FetchFailure::Unreachable), Just(FetchFailure::Damaged), Just(FetchFailure::Refused)];
    prop_oneof![
        3 => (1u32..5, any::<bool>(), prop::bool::weighted(0.9))
            .prop_map(|(version, allow_lower, lives)| Step::Assign { version, allow_lower, lives }),
        1 => Just(Step::Unassign),
        4 => Just(Step::Confirm),
        2 => any::<bool>().prop_map(Step::Online),
        12 => Just(Step::Persist),
        1 => Just(Step::PersistFails),
        6 => Just(Step::Fetch),
        1 => failure.prop_map(Step::FetchFails),
        8 => Just(Step::Serve),
        1 => Just(Step::ServeFails),
        4 => prop_oneof![4 => Just(GOOD), 1 => Just(BAD), 1 => Just(TrialReport::default())].prop_map(Step::Evidence),
        2 => (1u64..400).prop_map(Step::Advance),
        2 => Just(Step::Crash),
        1 => Just(Step::Stop),
    ]
}

impl Device {
    fn step(&mut self, step: Step) {
        match step {
            Step::Assign { version, allow_lower, lives } => {
                self.assign(version, allow_lower, if lives { 86_400 * Micros::SECOND } else { Micros::SECOND });
            }
            Step::Unassign => self.unassign(),
            Step::Confirm => self.confirm(),
            Step::Online(online) => self.tell(Input::Online(online)),
            Step::Persist => self.persist(),
            Step::PersistFails => {
                if !self.persists.is_empty() {
                    self.persists.clear();
                    self.tell(Input::PersistFailed);
                }
            }
            Step::Fetch => self.fetch(),
            Step::FetchFails(failure) => {
                if let Some(release) = self.fetches.pop_front() {
                    self.tell(Input::FetchFailed { sha256: release.sha256, failure, reason: "so".into() });
                }
            }
            Step::Serve => self.serve(true),
            Step::ServeFails => self.serve(false),
            Step::Evidence(evidence) => self.evidence(evidence),
            Step::Advance(seconds) => self.advance(seconds),
            Step::Crash => self.restart(),
            Step::Stop => {
                self.tell(Input::Stopping);
                while !self.persists.is_empty() {
                    self.persist();
                }
                self.restart();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The device's own assertions watch every step; afterwards something that works must serve.
    #[test]
    fn whatever_happens_in_whatever_order_something_checked_serves(steps in prop::collection::vec(step(), 1..120)) {
        let mut device = Device::new();
        for step in steps {
            device.step(step);
        }
        device.restart();
        device.settle();
        let committed = device.disk.committed.as_ref().map(|release| release.sha256);
        prop_assert_eq!(device.serving, committed);
        prop_assert_eq!(&device.disk.candidate, &Candidate::None);
        prop_assert!(committed.is_none_or(|sha256| device.files.contains(&sha256)));
    }
}
