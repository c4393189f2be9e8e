//! In which order a shell gets what it has to do.

use super::*;

#[test]
fn whoever_ends_a_trial_the_committed_package_is_back_before_that_is_written_and_files_go_after_it() {
    let mut device = Device::new();
    device.until_committed(1);
    device.until_trial(2);
    let generation = Generation(device.generation + 1);
    let wanted = Wanted { generation, expires: Micros(i64::MAX), release: release(1), allow_lower: true };
    let evidence = Input::Evidence { sha256: release(2).sha256, evidence: BAD };
    for input in [Input::Assigned(wanted), Input::Unassigned(generation), evidence] {
        let actions = device.updater.clone().handle(device.now, input.clone());
        let back = actions.iter().position(|action| matches!(action, Action::Serve(_)));
        let written = actions.iter().position(|action| matches!(action, Action::Persist { .. }));
        assert!(back.is_some() && back < written, "{input:?}: {actions:?}");
        assert!(!actions.contains(&Action::Collect), "a file is needed as long as the disk names it: {actions:?}");
    }
}
