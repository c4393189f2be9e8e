//! Many seeds at once.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// The number that an environment variable names, or another. Panics when it is none: whoever asks for more seeds wants them.
pub fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number: {text:?}")))
}

/// Does something with every number, each on a thread of its own as soon as a core is free: worlds know nothing of each
/// other. After one that panics no further ones begin.
pub fn on_all_cores(numbers: impl Iterator<Item = u64> + Send, work: impl Fn(u64) + Sync) {
    let Ok(()) = until_one_fails(numbers, |number| {
        work(number);
        Ok::<_, Infallible>(())
    });
}

/// The same with work that may fail: after the first failure, which is returned, no further ones begin.
pub fn until_one_fails<E: Send>(
    numbers: impl Iterator<Item = u64> + Send,
    work: impl Fn(u64) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let (numbers, over, failed) = (Mutex::new(numbers), AtomicBool::new(false), Mutex::new(None));
    let next = || numbers.lock().expect("nothing panics while it is held").next();
    let take = || {
        while !over.load(Ordering::Relaxed)
            && let Some(number) = next()
        {
            match catch_unwind(AssertUnwindSafe(|| work(number))) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    over.store(true, Ordering::Relaxed);
                    failed.lock().expect("nothing panics while it is held").get_or_insert(error);
                }
                Err(panic) => {
                    over.store(true, Ordering::Relaxed);
                    resume_unwind(panic);
                }
            }
        }
    };
    thread::scope(|scope| {
        (0..cores()).for_each(|_| {
            scope.spawn(take);
        });
    });
    failed.into_inner().expect("nothing panics while it is held").map_or(Ok(()), Err)
}

/// How many worlds run at once.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, |cores| cores.get())
}
