//! A panic in any number of threads ends the run with one error that names the stage.

use std::sync::Arc;

use crate::common::{config, next, open, write_shards};
use crate::fake::{Fake, start};
use prolip_loader::config::LoaderConfig;
use prolip_loader::error::Error;

#[test]
fn a_panic_becomes_one_error_that_names_its_stage() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[9, 9, 9]);
    for num_threads in [1, 4] {
        let config = LoaderConfig { num_threads, ..config(folder.path()) };
        let dataset = open(config, 0, 1).unwrap();
        let fake = Arc::new(Fake { prompt: true, panics: true, ..Fake::default() });
        let pipeline = start(&dataset, &fake);
        let error = next(&pipeline).unwrap_err();
        assert!(matches!(&*error, Error::Panicked { stage: "read", .. }), "{error}");
        assert!(Arc::ptr_eq(&next(&pipeline).unwrap_err(), &error));
        drop(pipeline);
        assert_eq!(Arc::strong_count(&dataset), 1);
    }
}
