//! The loader on bad data: what it counts, and which error it returns.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::common::{
    Content, archive, config, member, next, open, png, read_all, sample, tokenizer, write_shards,
};
use prolip_loader::config::{LastBatch, LoaderConfig};
use prolip_loader::error::{Error, TokenizeError};
use prolip_loader::order::Cursor;
use prolip_loader::pipeline::{Dataset, Pipeline};

#[test]
fn bad_samples_are_counted_and_replaced_or_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let parts = [
        sample("good-0", [1, 2, 3]),
        member("text.txt", b"no image"),
        [member("broken.png", b"no image either"), member("broken.txt", b"cat")].concat(),
        member("silent.png", &png(9, 9, [0; 3])),
        [member("twice.png", &png(9, 9, [0; 3])), member("twice.png", b"again")].concat(),
        sample("good-1", [4, 5, 6]),
        [member("latin.png", &png(9, 9, [0; 3])), member("latin.txt", b"caf\xe9")].concat(),
        [member("large.png", &png(2000, 600, [0; 3])), member("large.txt", b"cat")].concat(),
    ];
    std::fs::write(folder.path().join("0.tar"), archive(&parts)).unwrap();
    let base = LoaderConfig {
        captions: config(folder.path()).captions[..1].to_vec(),
        max_bad_fraction: 1.0,
        num_epochs: Some(1),
        ..config(folder.path())
    };
    let run = |last_batch| {
        let dataset = open(LoaderConfig { last_batch, ..base.clone() }, 0, 1).unwrap();
        let pipeline = Pipeline::start(Arc::clone(&dataset), &Cursor::default(), None).unwrap();
        let mut batches = Vec::new();
        while let Some(batch) = next(&pipeline).unwrap() {
            batches.push(Content::new(&batch, &dataset));
        }
        (batches, pipeline.stats())
    };
    let (kept, stats) = run(LastBatch::Keep);
    let mut keys: Vec<String> = kept.iter().flat_map(|batch| batch.keys.clone()).collect();
    keys.sort();
    assert_eq!(keys, ["good-0", "good-1"]);
    assert_eq!((stats.bad_samples.tried, stats.bad_samples.by_reason), (8, [1, 1, 0, 2, 2, 0]));
    assert!(
        stats
            .bad_samples
            .examples
            .iter()
            .any(|bad| bad.key == "text" && bad.error.starts_with("no image")),
        "{:?}",
        stats.bad_samples.examples
    );
    let (full, stats) = run(LastBatch::Drop);
    assert!(
        full.iter()
            .all(|batch| batch.keys.len() == 4
                && batch.keys.iter().all(|key| key.starts_with("good")))
    );
    assert_eq!(full.len(), 2);
    assert_eq!(stats.bad_samples.tried, 8 + stats.bad_samples.by_reason.iter().sum::<u64>());
    assert_eq!(full, run(LastBatch::Drop).0);

    let strict = open(LoaderConfig { max_bad_fraction: 0.2, ..base.clone() }, 0, 1).unwrap();
    match &*read_all(&strict, Cursor::default()).unwrap_err() {
        Error::TooManyBad { limit, first, .. } => {
            assert_eq!(*limit, 0.2);
            assert!(first.contains("0.tar: sample "), "{first}");
        }
        other => panic!("{other}"),
    }
}

/// The batches of a run before it fails, and its error, which are the same for any number of threads.
fn until_failure(
    config: &LoaderConfig,
    clean: fn() -> Result<(), TokenizeError>,
) -> (Vec<Vec<String>>, String) {
    let run = |num_threads, prefetch_batches| {
        let config = LoaderConfig { num_threads, prefetch_batches, ..config.clone() };
        let tokenizer = Some(tokenizer(clean));
        let dataset =
            Dataset::open(config, tokenizer, 0, 1, None, &AtomicBool::new(false)).unwrap();
        let dataset = Arc::new(dataset);
        let pipeline = Pipeline::start(Arc::clone(&dataset), &Cursor::default(), None).unwrap();
        let mut keys = Vec::new();
        loop {
            match next(&pipeline) {
                Ok(batch) => keys.push(Content::new(&batch.unwrap(), &dataset).keys),
                Err(error) => {
                    // Every later call returns the same error.
                    assert!(Arc::ptr_eq(&next(&pipeline).unwrap_err(), &error));
                    return (keys, error.to_string());
                }
            }
        }
    };
    let expected = run(1, 1);
    for (threads, prefetched) in [(1, 9), (2, 3), (4, 9), (7, 2), (4, 9), (7, 2)] {
        assert_eq!(run(threads, prefetched), expected);
    }
    expected
}

#[test]
fn too_many_bad_samples_fail_at_the_same_batch_whatever_the_threads() {
    let folder = tempfile::tempdir().unwrap();
    // The first half is good. In the second half every third image is invalid.
    let parts: Vec<Vec<u8>> = (0..240)
        .map(|index| match index {
            120.. if index % 3 == 0 => [
                member(&format!("{index:03}.png"), b"no image"),
                member(&format!("{index:03}.txt"), b"cat"),
            ]
            .concat(),
            _ => sample(&format!("{index:03}"), [index as u8; 3]),
        })
        .collect();
    std::fs::write(folder.path().join("0.tar"), archive(&parts)).unwrap();
    let base = LoaderConfig {
        captions: config(folder.path()).captions[..1].to_vec(),
        mask: None,
        shuffle_window: 0,
        max_bad_fraction: 0.02,
        ..config(folder.path())
    };
    for last_batch in [LastBatch::Drop, LastBatch::Keep] {
        let config = LoaderConfig { last_batch, ..base.clone() };
        let (batches, error) = until_failure(&config, || Ok(()));
        assert!((31..55).contains(&batches.len()), "{}", batches.len());
        assert!(error.contains("sample 120: "), "{error}");
    }
    // No sample may be bad: the batch of the first bad one fails.
    let strict = LoaderConfig { max_bad_fraction: 0.0, ..base };
    let (batches, error) = until_failure(&strict, || Ok(()));
    assert_eq!(batches.len(), 30);
    assert!(error.starts_with("2 of 124 samples cannot be used"), "{error}");
}

#[test]
fn batches_before_a_failure_are_delivered() {
    let folder = tempfile::tempdir().unwrap();
    // From the fourth batch on the cleaner is needed, and it fails.
    let parts: Vec<Vec<u8>> = (0..24)
        .map(|index| {
            let text = if index < 12 { "cat" } else { "c\u{e9}t" };
            [
                member(&format!("{index}.png"), &png(9, 9, [0; 3])),
                member(&format!("{index}.txt"), text.as_bytes()),
            ]
            .concat()
        })
        .collect();
    std::fs::write(folder.path().join("0.tar"), archive(&parts)).unwrap();
    let config = LoaderConfig {
        captions: config(folder.path()).captions[..1].to_vec(),
        keep_members: Vec::new(),
        mask: None,
        shuffle_window: 0,
        ..config(folder.path())
    };
    let (batches, error) = until_failure(&config, || Err(TokenizeError::Clean("no".into())));
    assert_eq!(batches.len(), 3);
    assert!(error.contains("tokenize"), "{error}");
}

#[test]
fn a_file_that_is_no_archive_is_an_error_at_opening() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[4, 4]);
    let path = folder.path().join("001.tar");
    for bytes in [&b"<html>no archive</html>"[..], b"", &[7; 4096]] {
        std::fs::write(&path, bytes).unwrap();
        let error = open(config(folder.path()), 0, 1).unwrap_err();
        assert!(error.shard().is_some_and(|shard| shard.ends_with("001.tar")), "{error}");
    }
}
