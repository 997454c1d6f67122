//! Settings of the loader that cannot work: the error names the field.

use std::sync::atomic::AtomicBool;

use crate::common::{STORE, config, open, write_shards};
use prolip_loader::config::{
    LastBatch, LoaderConfig, Mode, NativeConfig, OnMissingShard, StoreConfig,
};
use prolip_loader::error::Error;
use prolip_loader::remote::{check_addresses, settle};
use prolip_loader::shards::Location;

type Change = fn(&mut LoaderConfig);

/// The field that the error names for changed settings on a rank.
fn refused(change: Change, rank: usize, world_size: usize) -> String {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[4]);
    let mut config = config(folder.path());
    change(&mut config);
    match open(config, rank, world_size).unwrap_err() {
        Error::Config(error) => error.field.to_string(),
        other => panic!("{other}"),
    }
}

/// Steps of this many samples.
fn native(rows: u64) -> NativeConfig {
    NativeConfig {
        patch_size: 8,
        seq_lens: vec![4],
        seq_len_probs: Vec::new(),
        token_budget: 4 * rows,
        batch_divisor: 1,
    }
}

#[test]
fn invalid_settings_are_named() {
    let cases: [(Change, &str); 22] = [
        (|c| c.batch_size = 0, "batch_size"),
        (|c| (c.batch_size, c.last_batch) = (usize::MAX, LastBatch::Keep), "batch_size"),
        (|c| c.native = Some(native(5)), "native.token_budget"),
        (|c| c.shards.clear(), "shards"),
        (|c| c.image_size = [0; 2], "image_size"),
        (|c| c.image_size = [8, 4097], "image_size"),
        (|c| c.keep_members.push("CLS".to_owned()), "keep_members"),
        (|c| c.shuffle_window = usize::MAX, "shuffle_window"),
        (|c| c.num_epochs = Some(0), "num_epochs"),
        (|c| c.num_threads = 0, "num_threads"),
        (|c| c.num_threads = usize::MAX, "num_threads"),
        (|c| c.prefetch_batches = 0, "prefetch_batches"),
        (|c| c.max_bad_fraction = 1.5, "max_bad_fraction"),
        (|c| c.captions[1].sources.clear(), "captions[1].sources"),
        (|c| c.captions[1].sources[0].weight = -1.0, "captions[1].sources[0].weight"),
        (|c| c.captions[0].sources[0].key = "a..b".into(), "captions[0].sources[0].key"),
        (|c| c.mask.as_mut().unwrap().masked_fraction = 0.1, "mask.masked_fraction"),
        (|c| c.mask.as_mut().unwrap().keep_ratio = 0.01, "mask.keep_ratio"),
        (|c| c.mask.as_mut().unwrap().text_mask_prob = f64::NAN, "mask.text_mask_prob"),
        (|c| c.mask.as_mut().unwrap().mask_id = 0, "mask.mask_id"),
        (|c| c.augment.as_mut().unwrap().crop_scale = (0.9, 0.8), "augment.crop_scale"),
        (|c| c.augment.as_mut().unwrap().jitter[3] = 0.6, "augment.jitter"),
    ];
    for (change, field) in cases {
        assert_eq!(refused(change, 0, 1), field);
    }
}

#[test]
fn ranks_that_do_not_fit_are_named() {
    assert_eq!(refused(|_| {}, 2, 2), "rank");
    assert_eq!(refused(|_| {}, 0, 0), "world_size");
    assert_eq!(refused(|_| {}, 0, 2), "batch_size");
}

#[test]
fn shards_without_samples_are_not_blamed_on_other_settings() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[0]);
    let refused = |change: Change| {
        let mut config = config(folder.path());
        change(&mut config);
        open(config, 0, 1).unwrap_err()
    };
    for change in [(|_| {}) as Change, |c| c.mode = Mode::Resampled] {
        let error = refused(change);
        assert!(matches!(&error, Error::NoSample(shards) if shards.contains(".tar")), "{error}");
    }
    let missing = |c: &mut LoaderConfig| {
        (c.shards, c.on_missing_shard) = (vec!["none.tar".to_owned()], OnMissingShard::Skip);
    };
    let error = refused(missing);
    assert!(error.to_string().contains("none.tar: cannot open"), "{error}");
}

#[test]
fn unreadable_addresses_are_named_at_opening() {
    let settled = |shards: &[Location], config: &StoreConfig| {
        settle(shards.to_vec(), config, &AtomicBool::new(false))
    };
    let url = |text: &str| Location::Url(text.to_owned());
    let pipes = StoreConfig { allow_pipe: true, ..STORE };
    let pipe = Location::Pipe("cat *.tar".to_owned());
    let good =
        [url("s3://b/a.tar"), url("http://h/a.tar?x=*"), Location::File("a*".into()), pipe.clone()];
    assert_eq!(settled(&good, &pipes).unwrap(), good);
    let urls = [
        "ftp://h/a.tar",
        "s3://b",
        "http://h/*.tar",
        "hf://datasets/o/n/*.tar",
        "hf://models/o/n/a.tar",
    ];
    for shard in urls.map(url).into_iter().chain([pipe]) {
        let error = settled(std::slice::from_ref(&shard), &STORE).unwrap_err();
        assert!(matches!(&error, Error::Config(error) if error.field == "shards"), "{error}");
        assert!(check_addresses(&[shard], &STORE).is_err());
    }
}
