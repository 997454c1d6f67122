//! `prolip._core`: the loader for Python. Conversion only; what it does is in `prolip-loader`.

mod batch;
mod bench;
mod config;
mod error;
mod image;
mod index;
mod loader;
mod mask;
mod shards;
mod stats;
mod tokenizer;
mod wait;

use pyo3::prelude::*;

/// The loader of prolip. Use it through `prolip.data` and `prolip.data.tokenizer`.
#[pymodule]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::batch::Batch;
    #[pymodule_export]
    use crate::bench::decode_only;
    #[pymodule_export]
    use crate::image::{colour_jitter, decode_image, gray, preprocess_image, resize_box};
    #[pymodule_export]
    use crate::index::{check_index, write_index};
    #[pymodule_export]
    use crate::loader::{BatchIterator, BatchLoader};
    #[pymodule_export]
    use crate::mask::mask_tokens;
    #[pymodule_export]
    use crate::shards::{examine_shards, expand_shards, fetch_shard, shown_shard};
    #[pymodule_export]
    use crate::stats::{LoaderStats, StageStats};
    #[pymodule_export]
    use crate::tokenizer::Tokenizer;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        use prolip_loader::config::{MAX_CAPTION_BYTES, MAX_MEMBER_BYTES, MAX_PIXELS};
        module.add("MAX_CAPTION_BYTES", MAX_CAPTION_BYTES)?;
        module.add("MAX_MEMBER_BYTES", MAX_MEMBER_BYTES)?;
        module.add("MAX_PIXELS", MAX_PIXELS)?;
        // Threads that call the tokenizer's cleaner need an interpreter: they end before it does.
        let close_all = wrap_pyfunction!(crate::loader::close_all, module)?;
        module
            .py()
            .import("atexit")?
            .call_method1("register", (close_all,))?;
        Ok(())
    }
}
