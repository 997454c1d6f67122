//! Runs long work on its own thread while the calling thread lets Python handle signals.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use prolip_loader::error::Error;
use pyo3::prelude::*;

use crate::error::loader_error;

/// How often Python may handle signals during a wait.
pub const SIGNAL_POLL: Duration = Duration::from_millis(100);

/// Releases the GIL. If a signal handler raises, the work is cancelled and the exception is returned.
pub fn interruptible<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&AtomicBool) -> Result<T, Error> + Send,
) -> PyResult<T> {
    let stop = AtomicBool::new(false);
    let cancelled = &stop;
    py.detach(|| {
        let (sender, receiver) = sync_channel(1);
        std::thread::scope(|scope| {
            let worker = scope.spawn(move || {
                // A send fails only after a signal, when nobody wants the result.
                drop(sender.send(work(cancelled)));
            });
            loop {
                match receiver.recv_timeout(SIGNAL_POLL) {
                    Ok(result) => {
                        return Python::attach(|py| {
                            result.map_err(|error| loader_error(py, &error))
                        });
                    }
                    Err(RecvTimeoutError::Timeout) => {
                        if let Err(signal) = Python::attach(|py| py.check_signals()) {
                            cancelled.store(true, Ordering::Relaxed);
                            return Err(signal);
                        }
                    }
                    Err(RecvTimeoutError::Disconnected) => {
                        let thrown = worker.join().err().unwrap_or_else(|| Box::new(()));
                        let panicked = Error::panicked("open", thrown.as_ref());
                        return Python::attach(|py| Err(loader_error(py, &panicked)));
                    }
                }
            }
        })
    })
}
