//! Converts the loader's errors to Python exceptions. No other file does.

use prolip_image::DecodeError;
use prolip_loader::error::{ConfigError, Error, TokenizeError};
use prolip_loader::pipeline::BadSample;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

// The errors that a user can cause, with everything that says so in `python/prolip/errors.py`.
pyo3::import_exception!(prolip.errors, DataError);
pyo3::import_exception!(prolip.errors, NoSampleError);
pyo3::import_exception!(prolip.errors, UserError);

pub fn loader_error(py: Python<'_>, error: &Error) -> PyErr {
    match error {
        Error::Config(error) => config_error(error.clone()),
        Error::NoSample(shards) => {
            NoSampleError::new_err(("shards", "the shards hold no sample", shards.clone()))
        }
        Error::Open { .. }
        | Error::Tar { .. }
        | Error::Fetch(_)
        | Error::Index { .. }
        | Error::NotIndexed { .. }
        | Error::Changed { .. }
        | Error::Chosen { .. }
        | Error::TooManyBad { .. } => data_error(error),
        Error::Tokenize { source, .. } => {
            raised_by_cleaner(py, source).unwrap_or_else(|| data_error(error))
        }
        Error::Panicked { .. } | Error::Closed | Error::Spawn(_) => {
            PyRuntimeError::new_err(error.to_string())
        }
    }
}

fn data_error(error: &Error) -> PyErr {
    let own = |text: Option<&str>| text.map(str::to_owned);
    DataError::new_err((error.to_string(), own(error.shard()), own(error.key())))
}

pub fn bad_sample(sample: &BadSample) -> PyErr {
    let BadSample { shard, key, error } = sample.clone();
    DataError::new_err((error, shard, key))
}

pub fn config_error(error: ConfigError) -> PyErr {
    UserError::new_err((error.field, error.rule, error.value))
}

pub fn decode_error(error: DecodeError) -> PyErr {
    DataError::new_err(error.to_string())
}

pub fn tokenize_error(py: Python<'_>, error: &TokenizeError) -> PyErr {
    raised_by_cleaner(py, error).unwrap_or_else(|| match error {
        TokenizeError::Config(error) => config_error(error.clone()),
        TokenizeError::File { file, rule } => UserError::new_err((file.clone(), rule.clone())),
        TokenizeError::Clean(_) => PyRuntimeError::new_err(error.to_string()),
    })
}

/// The exception that the cleaning function raised, unchanged.
fn raised_by_cleaner(py: Python<'_>, error: &TokenizeError) -> Option<PyErr> {
    match error {
        TokenizeError::Clean(source) => {
            source.downcast_ref::<PyErr>().map(|raised| raised.clone_ref(py))
        }
        _ => None,
    }
}
