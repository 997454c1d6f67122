//! Opening a very large index reads only the counts of its shards.

#![allow(clippy::unwrap_used)]

use std::io::{Seek, SeekFrom, Write};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use prolip_loader::archive::index::{Entry, HEAD, Head, Index, OpenOptions};
use prolip_loader::config::{OnMissingShard, StoreConfig};
use prolip_loader::shards::{Regions, Stamp, Version, expand};

const SHARDS: u32 = 140_146;
const SAMPLES: u32 = 10_000;

/// Bytes of memory that this process has.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

#[test]
fn an_index_of_a_billion_samples_opens_in_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    // What a shard's regions are: a photograph of 110 kB and its caption take about 220 blocks.
    let places: Vec<u32> = (0..=SAMPLES).map(|sample| sample * 220).collect();
    let mut regions = Vec::new();
    Regions::new(places).encode(&mut regions);
    let crc = crc32fast::hash(&regions);
    let length = regions.len() as u32;
    let pattern = format!("s3://laion-high-resolution/data/{{000000..{:06}}}.tar", SHARDS - 1);
    let shards = expand(&[pattern], OnMissingShard::Raise).unwrap();
    let mut table = Vec::new();
    for shard in &shards {
        let entry = Entry {
            location: shard.to_string().into(),
            count: SAMPLES,
            offset: 0,
            length,
            crc,
            stamp: Stamp {
                size: 1 << 30,
                version: Version::ETag("0123456789abcdef0123456789abcdef-128".into()),
            },
        };
        entry.encode(&mut table);
    }
    let head = Head {
        shards: SHARDS,
        samples: u64::from(SHARDS) * u64::from(SAMPLES),
        table: HEAD as u64 + u64::from(length) * u64::from(SHARDS),
        length: table.len() as u64,
        crc: crc32fast::hash(&table),
    };
    // Only one shard's regions are written; the file has holes for the others.
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(&head.encode()).unwrap();
    let chosen = 100_000u32;
    let offset = HEAD as u64 + u64::from(chosen) * u64::from(length);
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(&regions).unwrap();
    file.seek(SeekFrom::Start(head.table)).unwrap();
    file.write_all(&table).unwrap();
    drop((file, table));

    let (begun, before) = (Instant::now(), resident());
    let opening = OpenOptions {
        missing: OnMissingShard::Raise,
        threads: 2,
        store: &StoreConfig::default(),
        cancelled: &AtomicBool::new(false),
    };
    let index = Index::from_file(&shards, &path, opening).unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!(index.num_samples(), 1_401_460_000);
    assert_eq!(index.regions(chosen).unwrap().len(), SAMPLES as usize);
    assert_eq!(index.regions(chosen).unwrap().get(7), Some(7 * 220 * 512..8 * 220 * 512));
    assert!(index.regions(3).is_err(), "a hole is no shard");
    let taken = before.zip(resident()).map(|(before, now)| now.saturating_sub(before));
    println!("{seconds:.2} s, {taken:?} bytes, a file of {} bytes", head.table + head.length);
    if let Some(taken) = taken {
        assert!(taken < 100 << 20, "{taken} bytes");
    }
    // A bound for busy machines and builds without optimisation. Usually it takes far less.
    assert!(seconds < 10.0, "{seconds} s");
}
