//! `BatchLoader` and the iterator over its batches.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use numpy::{PyReadonlyArray1, PyReadonlyArray3};
use parking_lot::Mutex;
use prolip_image::ValueTable;
use prolip_loader::order::Cursor;
use prolip_loader::pipeline::{Dataset, Next, Pipeline, Selection};
use prolip_loader::shards::{Chosen, Location};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::batch::Batch;
use crate::config::{as_dict, loader_config, read};
use crate::error::{config_error, loader_error};
use crate::stats::LoaderStats;
use crate::tokenizer::Tokenizer;
use crate::wait::{SIGNAL_POLL, interruptible};

/// Those that may still have threads, for `close_all`.
static RUNS: Mutex<Vec<Weak<Run>>> = Mutex::new(Vec::new());

/// Also checks that a run over the loader's data can resume there.
fn cursor(dataset: &Dataset, dataclass: &Bound<'_, PyAny>) -> PyResult<Cursor> {
    let cursor = read("resume", &as_dict(dataclass)?)?;
    dataset.check_cursor(&cursor).map_err(config_error)?;
    Ok(cursor)
}

fn read_selection(sources: &Bound<'_, PyAny>) -> PyResult<Selection> {
    let read = |source: PyResult<Bound<'_, PyAny>>| {
        let (name, stamp, rows): (String, _, PyReadonlyArray1<'_, u32>) = source?.extract()?;
        PyResult::Ok((Location::of(&name), Chosen { stamp, rows: rows.as_slice()?.into() }))
    };
    sources.try_iter()?.map(read).collect()
}

struct Run {
    /// `Some` until it is dropped.
    pipeline: Option<Pipeline>,
    closed: AtomicBool,
    process: u32,
}

impl Run {
    fn start(
        py: Python<'_>,
        dataset: Arc<Dataset>,
        from: &Cursor,
        table: Option<ValueTable>,
    ) -> PyResult<Arc<Self>> {
        let pipeline = py
            .detach(|| Pipeline::start(dataset, from, table))
            .map_err(|error| loader_error(py, &error))?;
        let process = std::process::id();
        let run =
            Arc::new(Self { pipeline: Some(pipeline), closed: AtomicBool::new(false), process });
        let mut runs = RUNS.lock();
        runs.retain(|run| run.strong_count() > 0);
        runs.push(Arc::downgrade(&run));
        Ok(run)
    }

    /// If this process started it.
    fn pipeline(&self) -> PyResult<&Pipeline> {
        check_process(self.process)?;
        self.pipeline.as_ref().ok_or_else(|| PyRuntimeError::new_err("the loader is closed"))
    }

    /// With the GIL released: a thread may need the interpreter before it can end.
    fn close(&self, py: Python<'_>) {
        if self.process != std::process::id() || self.closed.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(pipeline) = &self.pipeline {
            py.detach(|| pipeline.close());
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            // A forked child has no threads to join, and locks may be held forever.
            std::mem::forget(self.pipeline.take());
        }
    }
}

#[pyclass(frozen, module = "prolip._core")]
pub struct BatchLoader {
    dataset: Arc<Dataset>,
    current: Mutex<Option<Arc<Run>>>,
    process: u32,
}

#[pymethods]
impl BatchLoader {
    /// Opens the data set, and checks that a run can begin at `resume`. `selection` iterates over sources, their stamps and
    /// rows.
    #[new]
    #[pyo3(signature = (config, tokenizer, *, rank, world_size, resume, selection = None))]
    fn new(
        py: Python<'_>,
        config: &Bound<'_, PyAny>,
        tokenizer: Option<PyRef<'_, Tokenizer>>,
        rank: &Bound<'_, PyAny>,
        world_size: &Bound<'_, PyAny>,
        resume: &Bound<'_, PyAny>,
        selection: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let config = loader_config(config)?;
        let (rank, world_size) = (read("rank", rank)?, read("world_size", world_size)?);
        let tokenizer = tokenizer.map(|tokenizer| Arc::clone(&tokenizer.inner));
        let selection = selection.map(read_selection).transpose()?;
        let dataset = interruptible(py, |cancelled| {
            Dataset::open(config, tokenizer, rank, world_size, selection, cancelled)
        })?;
        cursor(&dataset, resume)?;
        Ok(Self {
            dataset: Arc::new(dataset),
            current: Mutex::new(None),
            process: std::process::id(),
        })
    }

    /// Start a run at a cursor. The previous run ends.
    ///
    /// A table, uint8 `[3, 256, width]`, has the 2 or 4 bytes that replace each value of an image.
    #[pyo3(signature = (place, table = None))]
    fn begin(
        &self,
        py: Python<'_>,
        place: &Bound<'_, PyAny>,
        table: Option<PyReadonlyArray3<'_, u8>>,
    ) -> PyResult<BatchIterator> {
        check_process(self.process)?;
        let from = cursor(&self.dataset, place)?;
        self.close(py);
        let table = table.map(|table| ValueTable::new(table.as_array().iter().copied().collect()));
        let run = Run::start(py, Arc::clone(&self.dataset), &from, table)?;
        *self.current.lock() = Some(Arc::clone(&run));
        Ok(BatchIterator { run, dataset: Arc::clone(&self.dataset) })
    }

    /// End the threads of the current run and wait for them.
    fn close(&self, py: Python<'_>) {
        if self.process == std::process::id() {
            let run = self.current.lock().clone();
            if let Some(run) = run {
                run.close(py);
            }
        }
    }

    /// Statistics of the current or last run; all zero before the first.
    fn stats(&self) -> PyResult<LoaderStats> {
        check_process(self.process)?;
        let run = self.current.lock().clone();
        run.map_or_else(
            || Ok(LoaderStats::default()),
            |run| Ok(LoaderStats::new(run.pipeline()?.stats())),
        )
    }

    /// A fingerprint of each shard's contents; "" if its headers have not been read.
    fn stamps(&self) -> Vec<String> {
        let known = self.dataset.index.shards().iter().map(|shard| shard.fingerprint.get());
        known.map(|known| known.map_or_else(String::new, ToString::to_string)).collect()
    }

    /// Batches of this rank per epoch, if known.
    #[getter]
    fn num_batches(&self) -> Option<u64> {
        self.dataset.num_batches()
    }

    /// Warnings from opening: damaged and skipped shards.
    #[getter]
    fn notes(&self) -> Vec<String> {
        self.dataset.index.notes().to_vec()
    }

    /// Samples per epoch over all ranks, if known.
    #[getter]
    fn num_samples(&self) -> Option<u64> {
        self.dataset.num_samples()
    }
}

/// In order.
#[pyclass(frozen, module = "prolip._core")]
pub struct BatchIterator {
    run: Arc<Run>,
    dataset: Arc<Dataset>,
}

#[pymethods]
impl BatchIterator {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Batch>> {
        let pipeline = self.run.pipeline()?;
        loop {
            let next = py.detach(|| pipeline.next_within(SIGNAL_POLL));
            match next.map_err(|error| loader_error(py, &error))? {
                Next::Batch(batch) => {
                    return Batch::new(py, *batch, &self.dataset, pipeline.preparation()).map(Some);
                }
                Next::End => return Ok(None),
                Next::Waiting => py.check_signals()?,
            }
        }
    }

    /// End the run's threads and wait for them.
    fn close(&self, py: Python<'_>) {
        self.run.close(py);
    }
}

impl Drop for BatchIterator {
    fn drop(&mut self) {
        // Without an interpreter, `close_all` has run already.
        Python::try_attach(|py| self.run.close(py));
    }
}

/// Registered to run before the interpreter ends.
#[pyfunction]
pub fn close_all(py: Python<'_>) {
    let runs: Vec<Arc<Run>> = RUNS.lock().iter().filter_map(Weak::upgrade).collect();
    for run in runs {
        run.close(py);
    }
}

fn check_process(process: u32) -> PyResult<()> {
    if process == std::process::id() {
        return Ok(());
    }
    Err(PyRuntimeError::new_err(
        "this loader belongs to the process that made it, and its threads did not follow into this fork: \
         make a loader after forking, or start processes with 'spawn'",
    ))
}
