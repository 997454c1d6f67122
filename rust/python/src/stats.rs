//! `LoaderStats`: a snapshot of a loader's counters.

use prolip_loader::error::Reason;
use prolip_loader::pipeline::{self, BadSample, Stage};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::bad_sample;

/// How often a stage ran and how many seconds it took, over all threads.
#[pyclass(frozen, get_all, module = "prolip._core")]
#[derive(Clone, Copy, Default)]
pub struct StageStats {
    count: u64,
    seconds: f64,
}

/// A snapshot of a loader's counters.
#[pyclass(frozen, module = "prolip._core")]
#[derive(Default)]
pub struct LoaderStats {
    stages: [StageStats; Stage::NAMES.len()],
    bad: [u64; Reason::NAMES.len()],
    /// Samples tried for the batches so far, including bad ones.
    #[pyo3(get)]
    samples: u64,
    /// Batches delivered.
    #[pyo3(get)]
    batches: u64,
    /// Batches that are ready.
    #[pyo3(get)]
    ready: u64,
    bad_samples: Vec<BadSample>,
}

impl LoaderStats {
    pub fn new(stats: pipeline::LoaderStats) -> Self {
        Self {
            stages: stats
                .stages
                .map(|stage| StageStats { count: stage.count, seconds: stage.seconds }),
            bad: stats.bad_samples.by_reason,
            samples: stats.bad_samples.tried,
            batches: stats.batches,
            ready: stats.ready,
            bad_samples: stats.bad_samples.examples,
        }
    }
}

#[pymethods]
impl LoaderStats {
    /// Statistics by stage: read, caption, decode, augment, tokenize, mask, and three kinds of waiting: wait, idle
    /// and fetch.
    #[getter]
    fn stages<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stages = PyDict::new(py);
        for (name, &stats) in Stage::NAMES.iter().zip(&self.stages) {
            stages.set_item(name, Bound::new(py, stats)?)?;
        }
        Ok(stages)
    }

    /// The first bad samples, each as a `DataError`.
    #[getter]
    fn bad_samples(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        let raised = self.bad_samples.iter().map(bad_sample);
        raised.map(|error| error.into_value(py).into_any()).collect()
    }

    /// Bad samples by reason. Reasons that did not occur are left out.
    #[getter]
    fn bad<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let bad = PyDict::new(py);
        for (name, &count) in Reason::NAMES.iter().zip(&self.bad).filter(|&(_, &count)| count > 0) {
            bad.set_item(name, count)?;
        }
        Ok(bad)
    }
}
