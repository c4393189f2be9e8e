//! In which order a shell gets what it has to do.

use super::*;

#[test]
fn the_committed_package_is_back_before_anything_is_written_whoever_ends_the_trial() {
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
    }
}
