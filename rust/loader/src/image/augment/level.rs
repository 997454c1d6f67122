//! Detects which kernels the processor can run.

#[cfg(target_arch = "x86_64")]
use super::avx512;

/// A set of kernels. All sets give the same bytes. A later set is faster, and needs at least the features of the earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// For any processor.
    Portable,
    /// SSE4.1: any x86 processor since 2008.
    #[cfg(target_arch = "x86_64")]
    Sse4,
    /// NEON: every 64-bit Arm processor.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// AVX2 and FMA: Haswell, Zen and later.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 with VNNI and VBMI: Ice Lake, Zen 4 and later.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// All sets for this kind of processor, slowest first.
    pub(super) const ALL: [Self; if cfg!(target_arch = "x86_64") { 4 } else { 2 }] = [
        Self::Portable,
        #[cfg(target_arch = "aarch64")]
        Self::Neon,
        #[cfg(target_arch = "x86_64")]
        Self::Sse4,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
    ];
}

/// The fastest set for this processor. In tests, the set requested by [`test_hook::at`] if that is slower.
pub(super) fn level() -> Level {
    #[cfg(test)]
    if let Some(level) = test_hook::limit() {
        return level.min(fastest());
    }
    fastest()
}

fn fastest() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        if avx512::available() {
            Level::Avx512
        } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            Level::Avx2
        } else if is_x86_feature_detected!("sse4.1") {
            Level::Sse4
        } else {
            Level::Portable
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        Level::Neon
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        Level::Portable
    }
}

#[cfg(test)]
pub(super) mod test_hook {
    //! Lets tests run slower kernels than the processor's best.

    use std::cell::Cell;

    use super::{Level, fastest};

    thread_local! {
        static LIMIT: Cell<Option<Level>> = const { Cell::new(None) };
    }

    pub(in super::super) fn limit() -> Option<Level> {
        LIMIT.get()
    }

    /// Runs `work` on this thread with the kernels of `level`.
    pub(in super::super) fn at<T>(level: Level, work: impl FnOnce() -> T) -> T {
        LIMIT.set(Some(level));
        let result = work();
        LIMIT.set(None);
        result
    }

    /// The sets that this processor can run, slowest first.
    pub(in super::super) fn runnable() -> impl Iterator<Item = Level> {
        Level::ALL.into_iter().filter(|&level| level <= fastest())
    }
}

/// Calls a kernel of the fastest set for this processor. Those of AVX2 serve processors with AVX-512, too.
macro_rules! by_level {
    ($kernel:ident($($argument:expr),*)) => {{
        #[cfg(target_arch = "aarch64")]
        use $crate::image::augment::vector::neon;
        #[cfg(target_arch = "x86_64")]
        use $crate::image::augment::vector::{avx2, sse4};
        use $crate::image::augment::{level::{Level, level}, portable};
        match level() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the processor has the features that the kernel is compiled for.
            Level::Avx512 | Level::Avx2 => unsafe { avx2::$kernel($($argument),*) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: likewise.
            Level::Sse4 => unsafe { sse4::$kernel($($argument),*) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: likewise.
            Level::Neon => unsafe { neon::$kernel($($argument),*) },
            Level::Portable => portable::$kernel($($argument),*),
        }
    }};
}
pub(super) use by_level;
