//! Runs work on many shards in parallel and delivers the results in order.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::error::Error;

struct Results<T, S> {
    /// Results that wait for an earlier one.
    early: BTreeMap<usize, T>,
    taken: usize,
    take: S,
    error: Option<Error>,
}

/// Runs `count` pieces of work with `threads` threads and passes the results to `take`, in order and one at a time.
/// Ends early if `take` fails or `cancelled` is set.
///
/// # Errors
/// The first error of `take`, [`Error::Panicked`] if the work panics, or [`Error::Closed`] if it was cancelled.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_the_first_error_stops_the_work() {
        for threads in [1, 3, 8] {
            let mut taken = Vec::new();
            let cancelled = AtomicBool::new(false);
            let work = |number| {
                std::thread::sleep(std::time::Duration::from_micros(number as u64 % 5 * 100));
                number
            };
            let take = |number| {
                taken.push(number);
                if number == 70 { Err(Error::Closed) } else { Ok(()) }
            };
            let error = in_order(100, threads, &cancelled, work, take).unwrap_err();
            assert!(matches!(error, Error::Closed));
            assert_eq!(taken, (0..=70).collect::<Vec<_>>());
            let stop = |number| {
                cancelled.store(number == 20, Ordering::Relaxed);
                Ok(())
            };
            let error = in_order(100, threads, &cancelled, work, stop);
            assert!(matches!(error, Err(Error::Closed)) || threads > 1);
        }
        let work = |number| assert_ne!(number, 20, "as it is meant to");
        match in_order(100, 3, &AtomicBool::new(false), work, |()| Ok(())) {
            Err(Error::Panicked { stage, message }) => {
                assert!(stage == "open" && message.contains("as it is meant to"));
            }
            other => panic!("{other:?}"),
        }
        assert!(in_order(0, 4, &AtomicBool::new(false), |_| (), |()| Ok(())).is_ok());
    }
}
