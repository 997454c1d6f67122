//! `LoaderStats`: a snapshot of a loader's counters.

use prolip_loader::error::Reason;
use prolip_loader::pipeline::{self, Stage};
use pyo3::prelude::*;
use pyo3::types::PyDict;

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
    stages: [StageStats; Stage::ALL.len()],
    bad: [u64; Reason::ALL.len()],
    /// Samples tried for the batches so far, including bad ones.
    #[pyo3(get)]
    samples: u64,
    /// Batches delivered.
    #[pyo3(get)]
    batches: u64,
    /// Batches that are ready.
    #[pyo3(get)]
    ready: u64,
    /// Descriptions of the first bad samples: shard, key, what is wrong.
    #[pyo3(get)]
    bad_samples: Vec<String>,
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
        for (stage, &stats) in Stage::ALL.iter().zip(&self.stages) {
            stages.set_item(stage.name(), Bound::new(py, stats)?)?;
        }
        Ok(stages)
    }

    /// Bad samples by reason. Reasons that did not occur are left out.
    #[getter]
    fn bad<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let bad = PyDict::new(py);
        for (reason, &count) in Reason::ALL.iter().zip(&self.bad).filter(|&(_, &count)| count > 0) {
            bad.set_item(reason.name(), count)?;
        }
        Ok(bad)
    }
}
