//! What a restart finds.

use tributary_node::{CrashStore, PAINT, untouched};
use tributary_wire::link::{Crash, CrashKind};

#[test]
fn a_crash_is_found_once_by_the_next_start_and_starts_are_counted() {
    let mut store = CrashStore::blank();
    let first = store.start(false);
    assert_eq!((first.starts, first.crash()), (1, None));
    store.crash(CrashKind::Panic, 77, "src/main.rs", 12);
    let second = store.start(false);
    assert_eq!(second.starts, 2);
    assert_eq!(second.crash(), Some(Crash { kind: CrashKind::Panic, uptime: 77, file: "src/main.rs", place: 12 }));
    let third = store.start(true);
    assert_eq!(third.crash(), Some(Crash { kind: CrashKind::Watchdog, uptime: 0, file: "", place: 0 }));
    assert_eq!(store.start(false).crash(), None);
}

#[test]
fn of_a_long_path_the_end_is_kept() {
    let mut store = CrashStore::blank();
    store.start(false);
    store.crash(CrashKind::Fault, 0, &format!("{}/node/src/é.rs", "ä".repeat(100)), 1);
    let start = store.start(false);
    let file = start.crash().unwrap().file;
    assert!(file.len() <= 48 && file.ends_with("/node/src/é.rs"), "{file}");
}

#[test]
fn the_stack_s_mark_is_where_the_paint_ends() {
    let mut words = [PAINT; 64];
    assert_eq!(untouched(&words), 256);
    words[40] = 1;
    words[60] = 2;
    assert_eq!(untouched(&words), 160);
    words[0] = 0;
    assert_eq!(untouched(&words), 0);
}
