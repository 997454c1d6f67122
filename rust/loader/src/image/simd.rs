//! Checks which vector instructions the kernels use, and lists those that this processor has.

use prolip_jpeg::simd;

use crate::error::ConfigError;

pub fn check_level() -> Result<&'static str, ConfigError> {
    match simd::check() {
        Ok(_) => Ok(simd::level().name()),
        Err(rule) => {
            let value = std::env::var(simd::VARIABLE).unwrap_or_default();
            Err(ConfigError::new(simd::VARIABLE, value, rule))
        }
    }
}

/// Values of `PROLIP_SIMD` for this processor, slowest first.
pub fn level_names() -> Vec<&'static str> {
    simd::runnable().map(simd::Level::name).collect()
}
