//! `prolip._core`: converts between Python and `prolip-loader`, which does the work.

mod batch;
mod bench;
mod config;
mod error;
mod image;
mod loader;
mod preprocess;
mod shards;
mod stats;
mod testing;
mod tokenizer;
mod wait;

use pyo3::prelude::*;

/// The compiled loader. Use it through `prolip.data` and `prolip.data.tokenizer`.
#[pymodule]
mod _core {
    use pyo3::prelude::*;
    use pyo3::types::PyTuple;

    #[pymodule_export]
    use crate::batch::{Batch, load_numpy};
    #[pymodule_export]
    use crate::bench::{decode_only, simd_level, simd_levels};
    #[pymodule_export]
    use crate::config::{native_rows, usable_cores};
    #[pymodule_export]
    use crate::image::{decode, grid_of};
    #[pymodule_export]
    use crate::loader::{BatchIterator, BatchLoader};
    #[pymodule_export]
    use crate::preprocess::{preprocess, preprocess_image};
    #[pymodule_export]
    use crate::shards::{
        check_index, examine_shards, expand_shards, fetch_shard, shard_regions, shown_shard,
        write_index,
    };
    #[pymodule_export]
    use crate::stats::{LoaderStats, StageStats};
    #[pymodule_export]
    use crate::tokenizer::Tokenizer;

    /// Single kernels of the loader, for tests only.
    #[pymodule]
    mod testing {
        #[pymodule_export]
        use crate::testing::{colour_jitter, gray, mask_tokens, resize};
    }

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        use prolip_loader::archive::IMAGE_EXTENSIONS;
        use prolip_loader::config::MAX_PIXELS;
        let extensions = PyTuple::new(module.py(), IMAGE_EXTENSIONS)?;
        module.add("IMAGE_EXTENSIONS", extensions)?;
        module.add("MAX_PIXELS", MAX_PIXELS)?;
        // An extension module is not a package: without this line `import prolip._core.testing` would fail.
        let modules = module.py().import("sys")?.getattr("modules")?;
        modules.set_item("prolip._core.testing", module.getattr("testing")?)?;
        // Threads that call the tokenizer's cleaning function must end before the interpreter does.
        let close_all = wrap_pyfunction!(crate::loader::close_all, module)?;
        module.py().import("atexit")?.call_method1("register", (close_all,))?;
        Ok(())
    }
}
