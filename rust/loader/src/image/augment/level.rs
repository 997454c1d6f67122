//! Detects which kernels the processor can run.

#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// A set of kernels. All sets give the same bytes. A later set is faster, and needs at least the features of the earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// For any processor.
    Portable,
    /// AVX2 and FMA: Haswell, Zen and later.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 with VNNI and VBMI: Ice Lake, Zen 4 and later.
    #[cfg(target_arch = "x86_64")]
    Avx512,
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
    if avx2::available() {
        return if avx512::available() {
            Level::Avx512
        } else {
            Level::Avx2
        };
    }
    Level::Portable
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
        let all = [
            Level::Portable,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512,
        ];
        all.into_iter().filter(|&level| level <= fastest())
    }
}
