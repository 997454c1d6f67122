//! Reads Python's configuration and cursors into the loader's types of the same field names.

use prolip_loader::config::{LoaderConfig, NativeConfig, StoreConfig};
use prolip_loader::error::ConfigError;
use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pythonize::Depythonizer;
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

use crate::error::config_error;

/// Without the tokenizer, which is passed separately.
pub fn loader_config(dataclass: &Bound<'_, PyAny>) -> PyResult<LoaderConfig> {
    let fields = as_dict(dataclass)?;
    fields.del_item("tokenizer")?;
    let mut config: LoaderConfig = read("", &fields)?;
    if config.num_threads == 0 {
        config.num_threads = default_threads();
    }
    Ok(config)
}

pub fn store_config(dataclass: &Bound<'_, PyAny>) -> PyResult<StoreConfig> {
    let config: StoreConfig = read("store", &as_dict(dataclass)?)?;
    config.validate().map_err(config_error)?;
    Ok(config)
}

/// Return the samples of a step with each sequence length of a `prolip.data.NativeConfig`.
#[pyfunction]
pub fn native_rows(dataclass: &Bound<'_, PyAny>) -> PyResult<Vec<u64>> {
    let native: NativeConfig = read("native", &as_dict(dataclass)?)?;
    native.validate().map_err(config_error)?;
    Ok(native.seq_lens.iter().map(|&length| native.rows(length)).collect())
}

pub fn as_dict<'py>(dataclass: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    dataclass.py().import("dataclasses")?.call_method1("asdict", (dataclass,))
}

/// An error names the dotted field below `name`, its value and the rule.
pub fn read<T: DeserializeOwned>(name: &str, value: &Bound<'_, PyAny>) -> PyResult<T> {
    serde_path_to_error::deserialize(&mut Depythonizer::from_object(value)).map_err(|error| {
        let field = match (name, error.path().to_string().as_str()) {
            (name, ".") => name.to_owned(),
            ("", inner) => inner.to_owned(),
            (name, inner) => format!("{name}.{inner}"),
        };
        let shown = shown(value, error.path()).unwrap_or_else(|_| "absent".to_owned());
        let reason = error.inner().to_string();
        let raised = PyErr::from(error.into_inner());
        let out_of_range = raised.is_instance_of::<PyOverflowError>(value.py());
        let rule = match out_of_range {
            true if shown.starts_with('-') => "must not be negative".to_owned(),
            true => "it is too large".to_owned(),
            false => reason,
        };
        config_error(ConfigError::new(field, shown, rule))
    })
}

fn shown(root: &Bound<'_, PyAny>, path: &Path) -> PyResult<String> {
    let mut value = root.clone();
    for segment in path.iter() {
        value = match segment {
            Segment::Seq { index } => value.get_item(*index)?,
            Segment::Map { key } => value.get_item(key)?,
            Segment::Enum { .. } | Segment::Unknown => value,
        };
    }
    Ok(value.repr()?.to_string())
}

/// By this process's affinity and the quota of its cgroup.
#[pyfunction]
pub fn usable_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Divided by the number of processes that torchrun started on this machine.
fn default_threads() -> usize {
    let local = std::env::var("LOCAL_WORLD_SIZE").ok().and_then(|text| text.parse::<usize>().ok());
    (usable_cores() / local.unwrap_or(1).max(1)).max(1)
}
