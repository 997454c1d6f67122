//! One source for the kernels of all instruction sets; the resize with AVX-512 has its own.
//!
//! Each instruction set has a file of operations with the same names ([`avx2`], [`avx512`], [`neon`]). The kernels are macros
//! over them, because a function must name the processor features that it is compiled for. A vector consists of parts of 16
//! bytes: one for NEON, two for AVX2, four for AVX-512. Operations that reorder bytes do so within each part.
//!
//! Only the load and store functions access memory. Each checks its bounds.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
mod colour;
mod hue;
mod hue_tables;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon;
mod plan;
mod planes;
mod resize;

/// Defines operations that are a line each.
macro_rules! operations {
    ($features:literal; $(
        $(#[$doc:meta])*
        fn $name:ident $(<$(const $bits:ident: i32),+>)? ($($argument:tt: $kind:ty),*) -> $result:ty { $($body:tt)* }
    )*) => {$(
        $(#[$doc])*
        #[inline]
        #[target_feature(enable = $features)]
        fn $name $(<$(const $bits: i32),+>)? ($($argument: $kind),*) -> $result {
            $($body)*
        }
    )*};
}
use operations;
pub(super) use plan::Buffers;
