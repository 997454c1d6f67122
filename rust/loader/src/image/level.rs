//! Checks the choice of vector instructions, and lists what there is to choose from.

use prolip_jpeg::level;

use crate::error::ConfigError;

/// Checks that `PROLIP_SIMD`, if it is set, names vector instructions that the processor has.
///
/// # Errors
/// It does not.
pub fn check_level() -> Result<(), ConfigError> {
    match level::check() {
        Ok(_) => Ok(()),
        Err(error) => Err(ConfigError::new(level::VARIABLE, error.value, error.rule)),
    }
}

/// The names that `PROLIP_SIMD` may have on this processor, slowest first.
#[must_use]
pub fn level_names() -> Vec<&'static str> {
    level::runnable().map(level::Level::name).collect()
}
