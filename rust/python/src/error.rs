//! Errors of the loader → Python's exceptions. Nowhere else.

use std::error::Error as StdError;

use prolip_loader::error::{ConfigError, DecodeError, Error, TokenizeError};
use pyo3::exceptions::{PyException, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

pyo3::create_exception!(
    prolip._core,
    DataError,
    PyException,
    "Data that cannot be used: a damaged shard, a picture that is none, too many bad samples. The message names the place."
);

pyo3::create_exception!(
    prolip._core,
    NoSamplesError,
    PyValueError,
    "The shards are readable but have no sample."
);

/// What stopped a loader.
pub fn loader_error(py: Python<'_>, error: &Error) -> PyErr {
    match error {
        Error::Config(_) => PyValueError::new_err(error.to_string()),
        Error::NoSamples(_) => NoSamplesError::new_err(error.to_string()),
        Error::Open { .. }
        | Error::Tar { .. }
        | Error::Fetch(_)
        | Error::Index { .. }
        | Error::NotIndexed { .. }
        | Error::Changed { .. }
        | Error::TooManyBad { .. } => DataError::new_err(error.to_string()),
        Error::Tokenize { source, .. } => {
            raised_by_cleaner(py, source).unwrap_or_else(|| DataError::new_err(error.to_string()))
        }
        Error::Panicked { .. } | Error::Closed | Error::Spawn(_) => {
            PyRuntimeError::new_err(error.to_string())
        }
    }
}

/// A setting that cannot work.
pub fn config_error(error: &ConfigError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// A picture that cannot be decoded.
pub fn decode_error(error: &DecodeError) -> PyErr {
    DataError::new_err(error.to_string())
}

/// A tokenizer that cannot be built, or captions that it cannot encode.
pub fn tokenize_error(py: Python<'_>, error: &TokenizeError) -> PyErr {
    raised_by_cleaner(py, error).unwrap_or_else(|| {
        let cause = error
            .source()
            .map(|source| format!(": {source}"))
            .unwrap_or_default();
        match error {
            TokenizeError::Clean(_) => PyRuntimeError::new_err(error.to_string()),
            _ => PyValueError::new_err(format!("{error}{cause}")),
        }
    })
}

/// What was raised inside the cleaner, as it was.
fn raised_by_cleaner(py: Python<'_>, error: &TokenizeError) -> Option<PyErr> {
    match error {
        TokenizeError::Clean(source) => source
            .downcast_ref::<PyErr>()
            .map(|raised| raised.clone_ref(py)),
        _ => None,
    }
}
