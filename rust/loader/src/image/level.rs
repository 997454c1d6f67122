//! Checks the choice of vector instructions.

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
