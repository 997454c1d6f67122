//! An index with right checksums and wrong content.

use std::path::Path;

use crate::common::{archive, next, open, sample};
use crate::index::{make, with_index};
use prolip_loader::archive::index::{HEAD, Head, parse_table};
use prolip_loader::config::{LastBatch, LoaderConfig};
use prolip_loader::order::Cursor;
use prolip_loader::pipeline::Pipeline;
use prolip_loader::shards::Regions;

/// Writes the index of one shard, with right checksums and these regions.
fn falsify(index: &Path, places: Vec<u32>) {
    let bytes = std::fs::read(index).unwrap();
    let head = Head::parse(bytes[..HEAD].try_into().unwrap()).unwrap();
    let [mut entry] =
        <[_; 1]>::try_from(parse_table(&bytes[head.table as usize..]).unwrap()).unwrap();
    let (mut regions, mut table) = (Vec::new(), Vec::new());
    let places = Regions::new(places);
    places.encode(&mut regions);
    entry.count = places.len() as u32;
    entry.length = regions.len() as u32;
    entry.crc = crc32fast::hash(&regions);
    entry.encode(&mut table);
    let head = Head {
        samples: u64::from(entry.count),
        table: (HEAD + regions.len()) as u64,
        length: table.len() as u64,
        crc: crc32fast::hash(&table),
        ..head
    };
    std::fs::write(index, [head.encode(), regions, table].concat()).unwrap();
}

#[test]
fn a_false_index_with_valid_checksums_gives_no_wrong_sample() {
    let folder = tempfile::tempdir().unwrap();
    let samples: Vec<Vec<u8>> =
        (0..4).map(|number| sample(&format!("{number}"), [number; 3])).collect();
    let blocks = samples[0].len() as u32 / 512;
    std::fs::write(folder.path().join("0.tar"), archive(&samples)).unwrap();
    let (index, _) = make(folder.path());
    let run = |places: &[u32]| {
        falsify(&index, places.iter().map(|place| place * blocks).collect());
        let config = LoaderConfig {
            last_batch: LastBatch::Keep,
            num_epochs: Some(1),
            shuffle_window: 0,
            max_bad_fraction: 1.0,
            ..with_index(folder.path(), &index)
        };
        let pipeline = Pipeline::start(open(config, 0, 1).unwrap(), &Cursor::default()).unwrap();
        let mut keys = Vec::new();
        loop {
            match next(&pipeline) {
                Ok(Some(batch)) => keys.extend(batch.lease.arrays.keys.iter().cloned()),
                Ok(None) => return Ok((keys, pipeline.stats().bad_samples)),
                Err(error) => return Err(error.to_string()),
            }
        }
    };
    assert_eq!(run(&[0, 1, 2, 3, 4]).unwrap().0, ["0", "1", "2", "3"]);
    // Two samples in one region: neither is used, and the error says so.
    let (keys, bad_samples) = run(&[0, 2, 3, 4]).unwrap();
    assert_eq!((keys, bad_samples.by_reason[5]), (vec!["2".to_owned(), "3".to_owned()], 1));
    assert!(bad_samples.examples[0].contains("does not fit the shard"));
    let error = run(&[0, 1, 2, 3, 9]).unwrap_err();
    assert!(error.contains("shards.index") && error.contains("beyond the shard's end"), "{error}");
}
