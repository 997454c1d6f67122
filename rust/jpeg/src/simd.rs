//! Which vector instructions the kernels use: the best of the processor, or those that `PROLIP_SIMD` names.

use std::cell::Cell;
use std::sync::OnceLock;

/// The environment variable that selects a level. It is read once.
pub const VARIABLE: &str = "PROLIP_SIMD";

/// All give the same bytes. A later level is faster, and includes the instructions of the earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What every processor of the architecture has.
    Portable,
    /// Vectors of 256 bits, AVX2, FMA, BMI and LZCNT: Haswell, Zen and later.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Vectors of 512 bits, AVX-512 with VNNI and VBMI: Ice Lake, Zen 4 and later. Cascade Lake has no VBMI.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// Vectors of 128 bits on Arm.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

/// All levels of this architecture, slowest first.
const ALL: &[Level] = &[
    Level::Portable,
    #[cfg(target_arch = "x86_64")]
    Level::Avx2,
    #[cfg(target_arch = "x86_64")]
    Level::Avx512,
    #[cfg(target_arch = "aarch64")]
    Level::Neon,
];

impl Level {
    /// Its name in `PROLIP_SIMD`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "neon",
        }
    }
}

thread_local! {
    static LIMIT: Cell<Option<Level>> = const { Cell::new(None) };
}

/// The level of this thread's kernels: that of the process, or the one requested by [`at`].
pub fn level() -> Level {
    match LIMIT.get() {
        Some(level) => level.min(fastest()),
        // The callers of `check` report a wrong value.
        None => check().unwrap_or_else(|_| fastest()),
    }
}

/// The level of the process: that of `PROLIP_SIMD`, or the fastest of this processor.
///
/// # Errors
/// `PROLIP_SIMD` names none that this processor can run. The error lists those.
pub fn check() -> Result<Level, String> {
    static CHOSEN: OnceLock<Result<Level, String>> = OnceLock::new();
    let choose = || {
        let value = std::env::var_os(VARIABLE).unwrap_or_default();
        choose(&value.to_string_lossy(), fastest())
    };
    CHOSEN.get_or_init(choose).clone()
}

fn choose(name: &str, fastest: Level) -> Result<Level, String> {
    if name.is_empty() {
        return Ok(fastest);
    }
    let mut possible = ALL.iter().filter(|&&level| level <= fastest);
    possible.clone().find(|level| level.name() == name).copied().ok_or_else(|| {
        let names: Vec<_> = possible.by_ref().map(|level| level.name()).collect();
        format!("this processor can run {}", names.join(", "))
    })
}

/// The levels that this processor can run, slowest first.
pub fn runnable() -> impl Iterator<Item = Level> {
    ALL.iter().copied().filter(|&level| level <= fastest())
}

/// Runs `work` with the kernels of `level` on this thread: for tests and benchmarks. If the processor cannot run them, its
/// fastest ones are used.
pub fn at<T>(level: Level, work: impl FnOnce() -> T) -> T {
    struct Restore(Option<Level>);
    impl Drop for Restore {
        fn drop(&mut self) {
            LIMIT.set(self.0);
        }
    }
    let _restore = Restore(LIMIT.replace(Some(level)));
    work()
}

#[cfg(target_arch = "x86_64")]
fn fastest() -> Level {
    macro_rules! has {
        ($($feature:tt),*) => { $(is_x86_feature_detected!($feature))&&* };
    }
    if !has!("avx2", "fma", "bmi1", "bmi2", "lzcnt", "popcnt") {
        Level::Portable
    } else if !has!("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni", "avx512vbmi") {
        Level::Avx2
    } else {
        Level::Avx512
    }
}

#[cfg(target_arch = "aarch64")]
fn fastest() -> Level {
    if std::arch::is_aarch64_feature_detected!("neon") { Level::Neon } else { Level::Portable }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn fastest() -> Level {
    Level::Portable
}

#[cfg(test)]
#[path = "simd_tests.rs"]
mod tests;
