//! Compressed local shards give the same batches as plain ones. Damaged streams are used up to the damage.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::common::{archive, config, member, open, read_all, sample, write_shards};
use prolip_loader::archive::index::write_index;
use prolip_loader::config::{LastBatch, LoaderConfig, OnMissingShard, StoreConfig};
use prolip_loader::order::Cursor;
use prolip_loader::pipeline::{BadSamples, Pipeline};
use prolip_loader::shards::Location;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn of(folder: &Path, names: &[&str]) -> LoaderConfig {
    let shards = names.iter().map(|name| folder.join(name).to_str().unwrap().to_owned());
    LoaderConfig { shards: shards.collect(), ..config(folder) }
}

/// The keys of an evaluation, its bad samples, and the notes of opening.
fn evaluate(config: LoaderConfig) -> (Vec<String>, BadSamples, Vec<String>) {
    let config = LoaderConfig {
        last_batch: LastBatch::Keep,
        shuffle_window: 0,
        num_epochs: Some(1),
        max_bad_fraction: 1.0,
        ..config
    };
    let dataset = open(config, 0, 1).unwrap();
    let pipeline = Pipeline::start(Arc::clone(&dataset), &Cursor::default()).unwrap();
    let mut keys = Vec::new();
    while let Some(batch) = crate::common::next(&pipeline).unwrap() {
        keys.extend(batch.lease.arrays.keys.iter().cloned());
    }
    (keys, pipeline.stats().bad_samples, dataset.index.notes().to_vec())
}

#[test]
fn compressed_shards_give_the_batches_of_plain_ones() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[7, 9, 5]);
    let at = |name: &str| folder.path().join(name);
    let plain = |name: &str| std::fs::read(at(name)).unwrap();
    std::fs::write(at("0.tar.gz"), gzip(&plain("000.tar"))).unwrap();
    // Two streams in a row, as parallel compressors write them, cut in the middle of a member.
    let (first, second) = (&plain("001.tar")[..3000], &plain("001.tar")[3000..]);
    std::fs::write(at("1.tgz"), [gzip(first), gzip(second)].concat()).unwrap();
    let bytes = plain("002.tar");
    let frames = [zstd(&bytes[..5000]), zstd(&bytes[5000..])].concat();
    std::fs::write(at("2.TAR.ZST"), frames).unwrap();
    let temporary = at("unpacked");
    std::fs::create_dir(&temporary).unwrap();
    let packed = LoaderConfig {
        store: StoreConfig { cache_dir: Some(temporary.clone()), ..StoreConfig::default() },
        ..of(folder.path(), &["0.tar.gz", "1.tgz", "2.TAR.ZST"])
    };
    let run = |config| read_all(&open(config, 0, 1).unwrap(), Cursor::default()).unwrap();
    let expected = run(of(folder.path(), &["000.tar", "001.tar", "002.tar"]));
    assert_eq!(run(packed.clone()), expected);
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);

    let index = at("index");
    let shards = packed.shards.iter().map(|path| Location::File(path.into()));
    let shards: Vec<Location> = shards.collect();
    write_index(&shards, &index, 2, &packed.store, &AtomicBool::new(false)).unwrap();
    let indexed = LoaderConfig { index: Some(index.to_str().unwrap().to_owned()), ..packed };
    assert_eq!(run(indexed.clone()), expected);
    std::fs::write(at("1.tgz"), gzip(first)).unwrap();
    let error = open(indexed, 0, 1).unwrap_err().to_string();
    assert!(error.contains("1.tgz has changed"), "{error}");
}

#[test]
fn a_damaged_compressed_shard_is_used_up_to_the_damage() {
    let folder = tempfile::tempdir().unwrap();
    // Bytes that compress badly, so that the stream is long.
    let parts: Vec<Vec<u8>> = (0..150u32)
        .map(|index| {
            let mut state = index + 1;
            let noise = std::iter::repeat_with(|| {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                state as u8
            });
            let cls: Vec<u8> = noise.take(3000).collect();
            let key = format!("{index:03}");
            [sample(&key, [index as u8, 7, 9]), member(&format!("{key}.cls"), &cls)].concat()
        })
        .collect();
    let plain = archive(&parts);
    for (name, whole) in [("a.tar.gz", gzip(&plain)), ("a.tar.zst", zstd(&plain))] {
        let path = folder.path().join(name);
        let middle = whole.len() / 2;
        let mut flipped = whole.clone();
        // More than a block of zstd, which has no checksum here.
        flipped[middle..middle + 150_000].fill(0xaa);
        for (kind, bytes) in [("cut", &whole[..middle]), ("flipped", &flipped)] {
            std::fs::write(&path, bytes).unwrap();
            let (keys, bad_samples, notes) = evaluate(of(folder.path(), &[name]));
            let [note] = &*notes else { panic!("{kind} {name}: {notes:?}") };
            assert!(note.contains(name) && note.ends_with("the samples before are used"), "{note}");
            let expected: Vec<String> =
                (0..keys.len()).map(|index| format!("{index:03}")).collect();
            assert_eq!(keys, expected, "{kind} {name}");
            assert!((1..150).contains(&keys.len()), "{kind} {name}: {}", keys.len());
            // The damage, and perhaps a sample that it cuts.
            let bad: u64 = bad_samples.by_reason.iter().sum();
            assert_eq!(bad_samples.by_reason[5], 1, "{kind} {name}: {bad_samples:?}");
            assert!(bad <= 2, "{kind} {name}: {bad_samples:?}");
        }
        for bytes in [&b"neither gzip nor zstd"[..], b""] {
            std::fs::write(&path, bytes).unwrap();
            let error = open(of(folder.path(), &[name]), 0, 1).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        // A damaged archive in an intact stream.
        let pack = if name.ends_with("gz") { gzip } else { zstd };
        let three = parts[0].len() * 3;
        std::fs::write(&path, pack(&plain[..three + 100])).unwrap();
        let (keys, bad_samples, _) = evaluate(of(folder.path(), &[name]));
        assert_eq!((keys.len(), bad_samples.by_reason), (3, [0, 0, 0, 0, 0, 1]));
    }
}

#[test]
fn a_stream_that_breaks_after_a_member_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (sample("a", [1; 3]), sample("b", [2; 3]));
    // Nothing is missing, a part of the json's padding, or its whole block.
    for (missing, whole) in [(0, 1), (100, 0), (512, 0)] {
        let first = &first[..first.len() - missing];
        for (name, pack) in [("a.tar.gz", gzip as fn(&[u8]) -> Vec<u8>), ("a.tar.zst", zstd)] {
            let (first, second) = (pack(first), pack(&second));
            // The header of another stream, without data.
            let damaged = [&first, &second[..12]].concat();
            std::fs::write(folder.path().join(name), damaged).unwrap();
            let (keys, bad_samples, notes) = evaluate(of(folder.path(), &[name]));
            assert_eq!(keys.len(), whole, "{missing} {name}");
            assert_eq!(bad_samples.by_reason[5], 1, "{missing} {name}: {bad_samples:?}");
            assert!(notes[0].contains("the archive is truncated"), "{notes:?}");
        }
    }
}

#[test]
fn a_compressed_shard_above_the_size_limit_is_not_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[4]);
    let plain = archive(&[sample("a", [1; 3]), member("b.png", &vec![0; 64 << 20])]);
    std::fs::write(folder.path().join("a.tar.gz"), gzip(&plain)).unwrap();
    let config = LoaderConfig {
        store: StoreConfig { max_shard_bytes: 1 << 20, ..StoreConfig::default() },
        ..of(folder.path(), &["a.tar.gz", "000.tar"])
    };
    let error = open(config.clone(), 0, 1).unwrap_err().to_string();
    assert!(
        error.contains("a.tar.gz")
            && error.contains("more bytes than store.max_shard_bytes = 1048576"),
        "{error}"
    );
    let (keys, bad_samples, notes) =
        evaluate(LoaderConfig { on_missing_shard: OnMissingShard::Skip, ..config });
    assert_eq!((keys.len(), bad_samples.by_reason), (4, [0; 6]));
    assert!(notes[0].ends_with("it is left out"), "{notes:?}");
}

#[test]
fn a_deleted_or_changed_shard_is_an_error_or_counted() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[8, 8]);
    let path = folder.path().join("b.tar.gz");
    let whole = gzip(&std::fs::read(folder.path().join("001.tar")).unwrap());
    for missing in [OnMissingShard::Raise, OnMissingShard::Skip] {
        for change in [None, Some(&whole[..whole.len() - 9])] {
            std::fs::write(&path, &whole).unwrap();
            let config = LoaderConfig {
                last_batch: LastBatch::Keep,
                shuffle_window: 0,
                num_epochs: Some(1),
                max_bad_fraction: 1.0,
                on_missing_shard: missing,
                ..of(folder.path(), &["000.tar", "b.tar.gz"])
            };
            let dataset = open(config, 0, 1).unwrap();
            match change {
                None => std::fs::remove_file(&path).unwrap(),
                Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            }
            let pipeline = Pipeline::start(Arc::clone(&dataset), &Cursor::default()).unwrap();
            for _ in 0..2 {
                let batch = crate::common::next(&pipeline).unwrap().unwrap();
                assert_eq!(batch.samples.len(), 4);
            }
            let what = if change.is_none() { "cannot open" } else { "it has changed since" };
            if missing == OnMissingShard::Raise {
                let error = crate::common::next(&pipeline).unwrap_err().to_string();
                assert!(error.contains("b.tar.gz") && error.contains(what), "{error}");
            } else {
                assert!(crate::common::next(&pipeline).unwrap().is_none());
                let bad_samples = pipeline.stats().bad_samples;
                assert_eq!(bad_samples.by_reason, [0, 0, 8, 0, 0, 0]);
                let first = &bad_samples.examples[0];
                assert!(
                    first.contains("b.tar.gz, sample no. 0: ") && first.contains(what),
                    "{first}"
                );
            }
        }
    }
}

#[test]
fn a_compressed_shard_without_the_suffix_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let many: Vec<Vec<u8>> = (0..90).map(|index| sample(&format!("{index}"), [index; 3])).collect();
    std::fs::write(folder.path().join("a.tar"), gzip(&archive(&many))).unwrap();
    let error = open(of(folder.path(), &["a.tar"]), 0, 1).unwrap_err().to_string();
    assert!(error.contains("compressed (gzip): decompress it, or let its name end"), "{error}");
}
