//! Checks which vector instructions the kernels use, and lists those that this processor has.

use prolip_jpeg::level;

use crate::error::ConfigError;

/// The name of the level that the kernels of this thread run at.
///
/// # Errors
/// `PROLIP_SIMD` names vector instructions that the processor lacks, or that do not exist.
pub fn check_level() -> Result<&'static str, ConfigError> {
    match level::check() {
        Ok(_) => Ok(level::level().name()),
        Err(error) => Err(ConfigError::new(level::VARIABLE, error.value, error.rule)),
    }
}

/// The names that `PROLIP_SIMD` may have on this processor, slowest first.
#[must_use]
pub fn level_names() -> Vec<&'static str> {
    level::runnable().map(level::Level::name).collect()
}
