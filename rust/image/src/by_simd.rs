//! Chooses the kernels of the vector instructions that are used.

macro_rules! by_simd {
    ($kernel:ident($($argument:expr),*)) => {{
        #[cfg(target_arch = "aarch64")]
        use $crate::kernels::neon;
        #[cfg(target_arch = "x86_64")]
        use $crate::kernels::{avx2, avx512};
        use $crate::portable;
        use prolip_jpeg::simd::{Level, level};
        match level() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the processor has the features that the kernel is compiled for.
            Level::Avx512 => unsafe { avx512::$kernel($($argument),*) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: likewise.
            Level::Avx2 => unsafe { avx2::$kernel($($argument),*) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: likewise.
            Level::Neon => unsafe { neon::$kernel($($argument),*) },
            Level::Portable => portable::$kernel($($argument),*),
        }
    }};
}
pub(crate) use by_simd;
