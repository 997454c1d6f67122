//! `Tokenizer`: made by `prolip.data.tokenizer`, called from Python or passed to a loader.

use std::path::PathBuf;
use std::sync::Arc;

use numpy::{PyArray1, PyArray2, PyArrayMethods};
use prolip_loader::error::TokenizeError;
use prolip_loader::text::tokenize::{self, Clean, CleanText, Cleaning};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyList;

use crate::error::tokenize_error;

/// Encodes captions as rows of token ids. Immutable, and shared by the threads of a loader.
#[pyclass(frozen, module = "prolip._core")]
pub struct Tokenizer {
    pub inner: Arc<tokenize::Tokenizer>,
}

#[pymethods]
impl Tokenizer {
    /// Load a Hugging Face tokenizer.json. `clean` maps a list of captions to cleaned ones; `how` names the same
    /// cleaning.
    #[staticmethod]
    #[pyo3(signature = (path, context_length, pad_id, clean=None, how="lower"))]
    fn from_file(
        py: Python<'_>,
        path: PathBuf,
        context_length: usize,
        pad_id: Option<u32>,
        clean: Option<Py<PyAny>>,
        how: &str,
    ) -> PyResult<Self> {
        let cleaning = clean.map(|clean| cleaning(clean, how)).transpose()?;
        let inner = py
            .detach(|| tokenize::Tokenizer::from_file(&path, context_length, pad_id, cleaning))
            .map_err(|error| tokenize_error(py, &error))?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Build CLIP's byte-pair encoding from the text of its merges. `clean` maps a list of captions to cleaned ones.
    #[staticmethod]
    #[pyo3(signature = (merges, context_length, clean, how="lower"))]
    fn clip(
        py: Python<'_>,
        merges: &[u8],
        context_length: usize,
        clean: Py<PyAny>,
        how: &str,
    ) -> PyResult<Self> {
        let cleaning = cleaning(clean, how)?;
        let inner = py
            .detach(|| tokenize::Tokenizer::clip(merges, context_length, cleaning))
            .map_err(|error| tokenize_error(py, &error))?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Return the token ids of each caption, int32 `[N, L]`.
    fn encode<'py>(
        &self,
        py: Python<'py>,
        captions: Vec<PyBackedStr>,
    ) -> PyResult<Bound<'py, PyArray2<i32>>> {
        let length = self.inner.context_length();
        let mut ids = vec![0; captions.len() * length];
        py.detach(|| {
            let texts: Vec<&str> = captions.iter().map(|caption| &**caption).collect();
            self.inner.encode_batch(&texts, &mut ids)
        })
        .map_err(|error| tokenize_error(py, &error))?;
        PyArray1::from_vec(py, ids).reshape([captions.len(), length])
    }

    /// Number of ids per row.
    #[getter]
    fn context_length(&self) -> usize {
        self.inner.context_length()
    }

    /// The padding id.
    #[getter]
    fn pad_id(&self) -> i32 {
        self.inner.pad_id()
    }

    /// One more than the largest id.
    #[getter]
    fn vocab_size(&self) -> usize {
        self.inner.vocab_size()
    }
}

/// Plain ASCII in Rust, other text by the Python function `clean`.
fn cleaning(clean: Py<PyAny>, how: &str) -> PyResult<Cleaning> {
    let how = match how {
        "lower" => Clean::Lower,
        "whitespace" => Clean::Whitespace,
        "canonicalize" => Clean::Canonicalize,
        _ => return Err(PyValueError::new_err(format!("{how:?} is no way to clean"))),
    };
    let cleaner = Arc::new(PyCleaner(clean));
    Ok(Cleaning { how, cleaner })
}

/// Any thread can call it; it attaches to the interpreter.
struct PyCleaner(Py<PyAny>);

impl CleanText for PyCleaner {
    fn clean(&self, captions: &mut [String]) -> Result<(), TokenizeError> {
        // A thread that outlives the interpreter must fail instead of waiting for it.
        Python::try_attach(|py| -> PyResult<()> {
            let cleaned = self.0.call1(py, (PyList::new(py, captions.iter())?,))?;
            let cleaned: Vec<String> = cleaned.extract(py)?;
            if cleaned.len() != captions.len() {
                let message = format!(
                    "the cleaner was given {} captions and returned {}",
                    captions.len(),
                    cleaned.len()
                );
                return Err(PyRuntimeError::new_err(message));
            }
            for (caption, cleaned) in captions.iter_mut().zip(cleaned) {
                *caption = cleaned;
            }
            Ok(())
        })
        .ok_or_else(|| TokenizeError::Clean("the Python interpreter is shutting down".into()))?
        .map_err(|error| TokenizeError::Clean(Box::new(error)))
    }
}
