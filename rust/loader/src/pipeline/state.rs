//! What the threads and the reader of a run share. Threads fill batches row by row, the reader takes them in order.
//!
//! Threads meet at a lock when a batch is begun and when it is finished, never for a sample.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::bad_samples::Tally;
use super::batch::Batch;
use super::dataset::Loader;
use super::in_progress::{Filling, Finished, Outcome};
use super::memory_pool::{Lease, Pool};
use super::planner::{Schedule, Upcoming};
use super::row::Row;
use super::row_slots::Slots;
use super::stats::{Counters, LoaderStats, Stage};
use crate::archive::OpenFiles;
use crate::error::Error;
use crate::order::{BatchPlan, Cursor};
use crate::remote::ShardProvider;

/// What the reader got.
#[derive(Debug)]
pub enum Next {
    /// The next batch.
    Batch(Box<Batch>),
    /// There are no more.
    End,
    /// None within the time.
    Waiting,
}

#[derive(Debug)]
struct State {
    /// Nothing while a thread looks what comes next, without the lock.
    schedule: Option<Schedule>,
    /// The next batch's shards are not there, and nothing has changed since that was seen.
    starved: bool,
    /// The batch that still has, or last had, slots to give out.
    current: Option<Arc<Filling>>,
    begun: u64,
    /// No batch is begun any more: they are all planned, or one has failed.
    planned_all: bool,
    finished: BTreeMap<u64, Finished>,
    /// Batches that the reader has passed, empty ones included.
    taken: u64,
    epoch_taken: u64,
    /// Samples of the batches that the reader has passed: of this epoch, and of the run.
    epoch_tally: Tally,
    run_tally: Tally,
    spare_rows: Vec<Vec<Row>>,
    /// Numbers of the batches that were begun and are not finished.
    unfinished: BTreeSet<u64>,
    /// Why no batch follows those that were begun, where that is an error.
    ending: Option<Error>,
    /// What ended the run. The reader sees it behind the finished batches.
    error: Option<Arc<Error>>,
}

/// What the threads and the reader share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub loader: Arc<Loader>,
    pub counters: Arc<Counters>,
    pool: Arc<Pool>,
    pub provider: Arc<dyn ShardProvider>,
    /// Local shards that are open.
    pub files: Arc<OpenFiles>,
    /// Times that the provider's answers may have changed.
    changes: AtomicU64,
    stopping: AtomicBool,
    state: Mutex<State>,
    /// Threads wait here for a batch to begin.
    work: Condvar,
    /// The reader waits here.
    ready: Condvar,
}

impl Shared {
    /// The state of a run that begins at a cursor, before its threads start.
    pub fn new(loader: Arc<Loader>, provider: Arc<dyn ShardProvider>, from: &Cursor) -> Arc<Self> {
        let config = &loader.config;
        let schedule = Schedule::new(Arc::clone(&loader), Arc::clone(&provider), from);
        let state = State {
            schedule: Some(schedule),
            starved: false,
            current: None,
            begun: 0,
            planned_all: false,
            finished: BTreeMap::new(),
            taken: 0,
            epoch_taken: from.epoch,
            epoch_tally: Tally::default(),
            run_tally: Tally::default(),
            spare_rows: Vec::new(),
            unfinished: BTreeSet::new(),
            ending: None,
            error: None,
        };
        let shared = Arc::new(Self {
            // One more than are prefetched: the batch that the reader works on.
            pool: Pool::new(
                config.prefetch_batches + 1,
                config.batch_size * loader.image_bytes(),
            ),
            loader,
            provider,
            changes: AtomicU64::new(0),
            files: Arc::default(),
            counters: Arc::default(),
            stopping: AtomicBool::new(false),
            state: Mutex::new(state),
            work: Condvar::new(),
            ready: Condvar::new(),
        });
        let weak = Arc::downgrade(&shared);
        shared.provider.on_change(Box::new(move || {
            if let Some(shared) = weak.upgrade() {
                shared.provider_changed();
            }
        }));
        shared
    }

    /// The counters now.
    pub fn stats(&self) -> LoaderStats {
        let state = self.state.lock();
        let (ready, tally) = (state.finished.len() as u64, state.run_tally.clone());
        drop(state);
        self.counters.snapshot(ready, tally)
    }

    /// Frees the memory that no batch holds. The threads must have ended.
    pub fn free(&self) {
        // Only now: until then a thread may be reading what it brought.
        self.provider.close();
        let mut state = self.state.lock();
        state.finished.clear();
        state.spare_rows.clear();
        state.current = None;
        drop(state);
        self.pool.close();
    }

    /// Whether threads should end as soon as they can.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Ends the run; the first reason is the one that the reader sees.
    pub fn stop(&self, error: Error) {
        self.halt(&mut self.state.lock(), error);
    }

    /// Ends the run. The reason is there before any thread can see that it should stop.
    fn halt(&self, state: &mut State, error: Error) -> Arc<Error> {
        let first = state.error.get_or_insert_with(|| Arc::new(error));
        self.stopping.store(true, Ordering::Relaxed);
        self.work.notify_all();
        self.ready.notify_all();
        Arc::clone(first)
    }

    /// Lets the threads look again whether the next batch's shards are there.
    fn provider_changed(&self) {
        // Before the lock: whoever is looking just now sees that it has to look once more.
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.state.lock().starved = false;
        self.work.notify_all();
    }

    /// A batch with slots to fill; nothing when the run is over.
    pub fn batch_with_work(&self) -> Option<Arc<Filling>> {
        let mut state = self.state.lock();
        loop {
            if self.is_stopping() {
                return None;
            }
            if let Some(current) = state
                .current
                .as_ref()
                .filter(|current| current.slots.has_work())
            {
                return Some(Arc::clone(current));
            }
            if state.planned_all {
                return None;
            }
            let free_places =
                state.begun - state.taken < self.loader.config.prefetch_batches as u64;
            if free_places
                && !state.starved
                && let Some(schedule) = state.schedule.take()
            {
                state = self.look_ahead(state, schedule);
                continue;
            }
            let stage = if free_places && state.starved {
                Stage::Fetch
            } else {
                Stage::Idle
            };
            let begun_waiting = Instant::now();
            self.work.wait(&mut state);
            self.counters.passed(stage, begun_waiting);
        }
    }

    /// Begins the next batch if its shards are there. The order of the samples and fresh memory take long, and the provider
    /// may take what time it likes, so all that is done without the lock.
    fn look_ahead<'state>(
        &'state self,
        state: MutexGuard<'state, State>,
        mut schedule: Schedule,
    ) -> MutexGuard<'state, State> {
        let unfinished = state.unfinished.first().copied().unwrap_or(state.begun);
        drop(state);
        let changes = self.changes.load(Ordering::Acquire);
        let (upcoming, lease) = match schedule.next(unfinished) {
            Upcoming::Batch(plan) => (Upcoming::Batch(plan), Some(self.pool.take())),
            other => (other, None),
        };
        let mut state = self.state.lock();
        state.schedule = Some(schedule);
        match (upcoming, lease) {
            (Upcoming::Batch(plan), Some(lease)) => self.begin(&mut state, plan, lease),
            (Upcoming::Waiting, _) => {
                state.starved = changes == self.changes.load(Ordering::Acquire);
            }
            (Upcoming::Failed(error), _) => {
                (state.planned_all, state.ending) = (true, Some(error));
            }
            _ => state.planned_all = true,
        }
        // Either there is a batch for all, or all may go home.
        self.work.notify_all();
        self.ready.notify_all();
        state
    }

    fn begin(&self, state: &mut State, plan: BatchPlan, lease: Lease) {
        let mut rows = state.spare_rows.pop().unwrap_or_default();
        rows.resize_with(plan.samples.len(), Row::default);
        state.current = Some(Arc::new(Filling {
            number: state.begun,
            plan,
            slots: Slots::new(lease, rows, self.loader.image_bytes()),
        }));
        state.unfinished.insert(state.begun);
        state.begun += 1;
    }

    /// Puts a finished batch where the reader finds it, and keeps the rows for another.
    pub fn finished(&self, number: u64, finished: Finished, rows: Vec<Row>) {
        let mut state = self.state.lock();
        // The reader ends at the first batch that failed. All before it are begun already, and are finished.
        state.planned_all |= !matches!(finished.outcome, Outcome::Made(_));
        state.finished.insert(number, finished);
        state.unfinished.remove(&number);
        // What only this batch needed can be given back, which may make room for what the next one needs.
        let was_starved = std::mem::take(&mut state.starved);
        state.spare_rows.push(rows);
        let (is_next, no_more) = (number == state.taken, state.planned_all);
        drop(state);
        if is_next {
            self.ready.notify_all();
        }
        if no_more || was_starved {
            self.work.notify_all();
        }
    }

    /// The next batch, if it is there within `timeout`.
    pub fn next_within(&self, timeout: Duration) -> Result<Next, Arc<Error>> {
        let begun = Instant::now();
        let mut state = self.state.lock();
        loop {
            let number = state.taken;
            if let Some(finished) = state.finished.remove(&number) {
                let batch = self
                    .pass(&mut state, finished)
                    .map_err(|error| self.halt(&mut state, error))?;
                // In an evaluation every sample of a batch may have been bad.
                if batch.samples.is_empty() {
                    continue;
                }
                drop(state);
                self.counters.delivered();
                self.counters.passed(Stage::Wait, begun);
                return Ok(Next::Batch(batch));
            }
            if let Some(error) = &state.error {
                return Err(Arc::clone(error));
            }
            if state.planned_all && state.taken == state.begun {
                if let Some(error) = state.ending.take() {
                    return Err(self.halt(&mut state, error));
                }
                state
                    .epoch_tally
                    .check_whole(self.loader.config.max_bad_fraction)
                    .map_err(|error| self.halt(&mut state, error))?;
                return Ok(Next::End);
            }
            let left = timeout.saturating_sub(begun.elapsed());
            if left.is_zero() {
                drop(state);
                self.counters.spend(Stage::Wait, begun.elapsed());
                return Ok(Next::Waiting);
            }
            self.ready.wait_for(&mut state, left);
        }
    }

    /// Counts and judges a batch that the reader comes to, and the epoch before where it is the first of another.
    fn pass(&self, state: &mut State, finished: Finished) -> Result<Box<Batch>, Error> {
        let limit = self.loader.config.max_bad_fraction;
        if finished.epoch != state.epoch_taken {
            state.epoch_tally.check_whole(limit)?;
            state.epoch_tally = Tally::default();
            state.epoch_taken = finished.epoch;
        }
        state.epoch_tally.add(&finished.tally);
        state.run_tally.add(&finished.tally);
        let batch = match finished.outcome {
            Outcome::Made(batch) => batch,
            Outcome::Unfilled => return Err(state.epoch_tally.too_many(limit)),
            Outcome::Failed(error) => return Err(error),
        };
        state.epoch_tally.check_so_far(limit)?;
        state.taken += 1;
        self.work.notify_all();
        Ok(batch)
    }
}
