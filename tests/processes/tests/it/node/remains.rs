//! What ends a node's program badly is kept over the restart and told to the agent.

use tributary_wire::link::{BlobKind, IMAGE_HEAD};

use super::debugger::{Debugger, PLACE};
use super::images::image;
use super::{Bench, VIEW};

/// Enables and raises an interrupt that the board does not know, which its handler panics about:
/// `cpsie i; ldr r0, =0xe000e100; movs r1, #0x20; str r1, [r0]; str r1, [r0, #0x100]; b .`
const PANICS: [u16; 10] = [0xb662, 0x4803, 0x2120, 0x6001, 0xf8c0, 0x1100, 0xe7fe, 0xbf00, 0xe100, 0xe000];
/// `udf #0`: no instruction of this processor.
const FAULTS: [u16; 1] = [0xde00];
/// `cpsid i; b .`: nothing feeds the watchdog.
const HANGS: [u16; 2] = [0xb672, 0xe7fe];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_a_fault_and_a_hang_of_an_emulated_node_are_told_after_its_restart() {
    let Some(Bench { folder, agent, tap: _tap, _emulator, .. }) = Bench::start(VIEW, None).await else { return };
    agent.until("windows come in", |node| node["accepted"].as_u64() >= Some(3)).await;
    let fault = format!("fault at {PLACE:#010x}");
    let ways = [(&PANICS[..], "panic in boards/mps2/src/main.rs:"), (&FAULTS, &fault), (&HANGS, "watchdog at")];
    for (restarts, (instructions, expected)) in ways.into_iter().enumerate() {
        Debugger::attach(&folder.path().join("debug.sock")).await.run(instructions);
        let starts = restarts + 2;
        let node = agent.until("the node is back", |node| node["starts"] == starts && node["crash"].is_string()).await;
        let crash = node["crash"].as_str().unwrap();
        assert!(crash.starts_with(expected), "{crash}");
        let accepted = node["accepted"].as_u64().unwrap();
        agent.until("it measures", |node| node["accepted"].as_u64() > Some(accepted + 3)).await;
    }
}

/// The record of a panic lies where every program looks for it, whatever variables the one that panicked has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn firmware_that_panics_on_trial_is_told_by_the_firmware_that_comes_back() {
    let Some(Bench { agent, program, tap: _tap, _emulator, folder: _folder }) = Bench::start(VIEW, None).await else {
        return;
    };
    agent.until("windows come in", |node| node["accepted"].as_u64() >= Some(3)).await;
    let built = std::fs::read(program.with_file_name("panics.img")).unwrap();
    let firmware = image(BlobKind::Firmware, 2, &built[IMAGE_HEAD..]);
    assert_eq!(agent.bring(&firmware).await.0, 202);
    let node = agent.until("the crash is told", |node| node["crash"].is_string()).await;
    assert!(node["crash"].as_str().unwrap().starts_with("panic in boards/mps2/src/panics.rs:"), "{node}");
    // Its own start is counted too, in the memory that both share.
    assert!(node["starts"].as_u64() >= Some(3), "{node}");
    agent
        .until("the old firmware is back", |node| node["image"]["version"] == 1 && node["image"]["state"] == "reverted")
        .await;
}
