//! A panic in any stage and any number of threads ends the run with one error that names the stage.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{config, next, open, write_shards};
use prolip_loader::config::LoaderConfig;
use prolip_loader::error::{Error, FetchError};
use prolip_loader::order::Cursor;
use prolip_loader::pipeline::Pipeline;
use prolip_loader::remote::{ReadyShard, ShardProvider};

/// Local files, of which one call panics.
#[derive(Debug)]
struct Panicking(&'static str);

impl Panicking {
    fn called(&self, call: &str) {
        assert_ne!(call, self.0, "as it is meant to");
    }
}

impl ShardProvider for Panicking {
    fn request(&self, _: &[u32]) {
        self.called("request");
    }

    fn is_ready(&self, _: u32) -> bool {
        self.called("is_ready");
        true
    }

    fn length(&self, _: u32) -> Option<Result<u64, Error>> {
        None
    }

    fn get(&self, _: u32) -> Result<Option<ReadyShard>, FetchError> {
        // Long enough that every thread is in it.
        std::thread::sleep(Duration::from_millis(20));
        self.called("lend");
        Ok(None)
    }

    fn release(&self, _: u32) {}

    fn on_change(&self, _: Box<dyn Fn() + Send + Sync>) {}

    fn close(&self) {}
}

#[test]
fn a_panic_in_any_stage_becomes_one_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[9, 9, 9]);
    for (call, expected) in [("request", "fetch"), ("is_ready", "fetch"), ("lend", "read")] {
        for num_threads in [1, 4] {
            let config = LoaderConfig { num_threads, ..config(folder.path()) };
            let dataset = open(config, 0, 1).unwrap();
            let provider = Arc::new(Panicking(call));
            let pipeline = Pipeline::start_with(
                Arc::clone(&dataset),
                Some(provider),
                &Cursor::default(),
                None,
            )
            .unwrap();
            let error = next(&pipeline).unwrap_err();
            match &*error {
                Error::Panicked { stage, message } => {
                    assert_eq!(*stage, expected, "{call}");
                    assert!(message.contains("as it is meant to"), "{message}");
                }
                other => panic!("{other}"),
            }
            assert!(Arc::ptr_eq(&next(&pipeline).unwrap_err(), &error));
            drop(pipeline);
            assert_eq!(Arc::strong_count(&dataset), 1, "{call}");
        }
    }
}
