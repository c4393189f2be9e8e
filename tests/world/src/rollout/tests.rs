use super::*;

/// Worlds of one run of the tests; `WORLD_ROLLOUTS` asks for more.
fn seeds() -> u64 {
    std::env::var("WORLD_ROLLOUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

fn small() -> Settings {
    Settings { devices: Some(3), minutes: Some(20), ..Settings::default() }
}

#[test]
fn whatever_breaks_the_promises_hold_and_afterwards_everybody_gets_the_last_release() {
    for seed in 0..seeds() {
        run(seed, &small()).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}

#[test]
fn the_same_seed_is_the_same_world() {
    let trace =
        |seed| run(seed, &small()).map(|run| run.trace).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}

/// Some seed of the first ones shows what is broken on purpose, in these words.
fn is_found(breakage: Breakage, words: &str) {
    let settings = Settings { breakage: Some(breakage), devices: Some(4), minutes: Some(40), ..Settings::default() };
    let broken = (0..40).find_map(|seed| run(seed, &settings).err());
    let broken = broken.unwrap_or_else(|| panic!("{breakage:?} is not found"));
    assert!(broken.what.contains(words), "{breakage:?} is found as: {broken}");
}

#[test]
fn a_hub_that_answers_though_the_rollout_was_stopped_or_paused_is_found() {
    is_found(Breakage::SignsAfterStop, "promise 6");
}

#[test]
fn a_way_back_without_leave_to_lower_the_version_is_found() {
    is_found(Breakage::RollbackWithoutLeave, "");
}

#[test]
fn a_hub_that_counts_generations_by_itself_is_found() {
    is_found(Breakage::GenerationsBegunAnew, "");
}

#[test]
fn a_device_that_does_not_ask_is_found() {
    is_found(Breakage::SkipsTheAsk, "promise 6");
}

#[test]
fn a_record_that_is_taken_for_durable_and_is_not_is_found() {
    is_found(Breakage::CommitBeforeDurable, "promise");
}

#[test]
fn an_assignment_that_counts_without_having_been_stored_is_found() {
    is_found(Breakage::KeepsWithoutStoring, "promise 5");
}

#[test]
fn a_device_that_does_not_look_into_the_signed_repository_is_found() {
    is_found(Breakage::SkipsTheChain, "promise 3");
}
