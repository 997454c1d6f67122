//! Compressed local shards give the same batches as plain ones. Damaged streams are used up to the damage.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::common::{STORE, config, open, read_all, write_shards};
use prolip_loader::archive::index::write_index;
use prolip_loader::config::{LoaderConfig, StoreConfig};
use prolip_loader::error::Error;
use prolip_loader::order::Cursor;
use prolip_loader::shards::Location;

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
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
        store: StoreConfig { cache_dir: Some(temporary.clone()), ..STORE },
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
    let error = open(indexed, 0, 1).unwrap_err();
    assert!(matches!(error, Error::Changed { .. }), "{error}");
}
