//! Runs work on many shards in parallel and delivers the results in order.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::error::Error;

struct Results<T, S> {
    early: BTreeMap<usize, T>,
    taken: usize,
    take: S,
    error: Option<Error>,
}

/// Runs `count` pieces of work with `threads` threads and passes the results to `take`, in order and one at a time.
/// Ends early if `take` fails or `cancelled` is set.
pub fn in_order<T: Send>(
    count: usize,
    threads: usize,
    cancelled: &AtomicBool,
    work: impl Fn(usize) -> T + Sync,
    take: impl FnMut(T) -> Result<(), Error> + Send,
) -> Result<(), Error> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Results { early: BTreeMap::new(), taken: 0, take, error: None });
    let run = || {
        while !cancelled.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let result = catch_unwind(AssertUnwindSafe(|| work(number)));
            let mut results = results.lock();
            let results = &mut *results;
            match result {
                Ok(result) => drop(results.early.insert(number, result)),
                Err(thrown) => {
                    let panicked = Error::panicked("open", thrown.as_ref());
                    results.error.get_or_insert(panicked);
                }
            }
            while results.error.is_none()
                && let Some(result) = results.early.remove(&results.taken)
            {
                results.taken += 1;
                results.error = (results.take)(result).err();
            }
            if results.error.is_some() {
                next.store(count, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(count) {
            scope.spawn(run);
        }
        run();
    });
    let results = results.into_inner();
    match results.error {
        Some(error) => Err(error),
        None if results.taken < count => Err(Error::Closed),
        None => Ok(()),
    }
}
