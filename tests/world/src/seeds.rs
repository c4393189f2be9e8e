//! Many seeds at once, for runs of the tests.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// The number that an environment variable names, or another. Panics when it is none: whoever asks for more seeds wants them.
pub fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number: {text:?}")))
}

/// Does something with every number, each on a thread of its own as soon as a core is free: worlds know nothing of each
/// other. After one that panics no further ones begin.
pub fn on_all_cores(numbers: Range<u64>, work: impl Fn(u64) + Sync) {
    let (next, failed) = (AtomicU64::new(numbers.start), AtomicBool::new(false));
    let take = || {
        while !failed.load(Ordering::Relaxed)
            && let Some(number) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|it| *it < numbers.end)
        {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(number))) {
                failed.store(true, Ordering::Relaxed);
                resume_unwind(panic);
            }
        }
    };
    thread::scope(|scope| {
        (0..thread::available_parallelism().map_or(1, |cores| cores.get())).for_each(|_| {
            scope.spawn(take);
        });
    });
}
