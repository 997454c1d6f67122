//! The whole loader on small shards: what it returns, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{config, next, open, read_all, write_shards};
use prolip_loader::config::{LastBatch, LoaderConfig, PatchDraw, TextMode};
use prolip_loader::error::Error;
use prolip_loader::order::{Cursor, Leg};
use prolip_loader::pipeline::{Next, Pipeline, Stage};

#[test]
fn a_resumed_loader_equals_an_uninterrupted_one() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[7, 9]);
    let dataset = open(config(folder.path()), 0, 1).unwrap();
    let whole = read_all(&dataset, Cursor::default()).unwrap();
    for stop in 0..whole.len() {
        assert_eq!(read_all(&dataset, whole[stop].cursor.clone()).unwrap(), whole[stop + 1..]);
    }
    let refused = |leg: Leg| {
        let cursor = Cursor { epoch: 0, legs: vec![leg, leg] };
        dataset.check_cursor(&cursor).unwrap_err().field
    };
    let leg = |world_size, batch_size, steps| Leg { world_size, batch_size, steps };
    // 16 samples: two steps of two ranks with four each leave nothing for another leg.
    assert_eq!(refused(leg(2, 4, 2)), "resume.legs[1].steps");
    assert_eq!(refused(leg(2, 4, 3)), "resume.legs[0].steps");
    assert_eq!(refused(leg(0, 4, 0)), "resume.legs[0].world_size");
    assert_eq!(refused(leg(1 << 32, 4, 0)), "resume.legs[0].world_size");
    assert_eq!(refused(leg(2, 0, 0)), "resume.legs[0].batch_size");
    assert_eq!(refused(leg(1, u64::MAX, 2)), "resume.legs[0].steps");
}

#[test]
fn an_evaluation_reads_in_file_order_and_keeps_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[3, 4]);
    let config = LoaderConfig {
        augment: None,
        captions: Vec::new(),
        mask: None,
        num_epochs: Some(1),
        shuffle_window: 0,
        last_batch: LastBatch::Keep,
        ..config(folder.path())
    };
    let batches = read_all(&open(config, 0, 1).unwrap(), Cursor::default()).unwrap();
    let keys: Vec<String> = batches.iter().flat_map(|batch| batch.keys.clone()).collect();
    assert_eq!(keys, ["s0-0", "s0-1", "s0-2", "s1-0", "s1-1", "s1-2", "s1-3"]);
    assert_eq!(batches[1].images.len(), 3 * 8 * 8 * 3);
    assert_eq!(batches[1].images[64 * 3..][..3], [20, 10, 7]);
    assert!(batches[0].token_ids.is_empty());
    let json = std::str::from_utf8(batches[0].kept[0].member(0).unwrap()).unwrap();
    assert!(json.contains("cat s0-0"), "{json}");
}

#[test]
fn masks_follow_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[16]);
    let masked = |change: fn(&mut LoaderConfig)| {
        let mut config = config(folder.path());
        change(&mut config);
        read_all(&open(config, 0, 1).unwrap(), Cursor::default()).unwrap()
    };
    let (length, rows, first_masked) = (12, 4, 2);
    for batch in masked(|config| config.mask.as_mut().unwrap().general_prob = 0.0) {
        for slot in 0..2 {
            for row in 0..first_masked {
                let plain = &batch.token_ids[(slot * rows + row) * length..][..length];
                let changed =
                    &batch.masked_token_ids[(slot * first_masked + row) * length..][..length];
                assert!(
                    plain
                        .iter()
                        .zip(changed)
                        .all(|(old, new)| new == old || (*new == 600 && *old != 0))
                );
            }
        }
        assert_ne!(batch.kept_patches[..8], batch.kept_patches[8..]);
    }
    let removed = masked(|config| {
        let mask = config.mask.as_mut().unwrap();
        (mask.text_mode, mask.general_prob, mask.patch_draw) =
            (TextMode::Remove, 0.0, PatchDraw::Batch);
    });
    assert!(removed.iter().all(|batch| !batch.masked_token_ids.contains(&600)));
    assert!(removed.iter().all(|batch| batch.kept_patches[..8] == batch.kept_patches[8..]));
    let general = masked(|config| config.mask.as_mut().unwrap().general_prob = 1.0);
    // "the" is 513 and "cat" 517; 518 and 519 stand around them. Only the first slot names general captions.
    let (the, a_cat) = ([518, 513, 519], [518, 320, 517, 519]);
    for row in general
        .iter()
        .flat_map(|batch| batch.masked_token_ids[..first_masked * length].chunks(length))
    {
        assert!(row.starts_with(&the) || row.starts_with(&a_cat), "{row:?}");
    }
    // Which captions are drawn does not depend on how they are masked.
    assert!(general.iter().zip(&removed).all(|(a, b)| a.token_ids == b.token_ids));
}

#[test]
fn closing_or_dropping_at_any_moment_ends_the_threads() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[9, 9]);
    let dataset = open(LoaderConfig { num_epochs: None, ..config(folder.path()) }, 0, 1).unwrap();
    for taken in 0..12 {
        let pipeline = Pipeline::start(Arc::clone(&dataset), &Cursor::default(), None).unwrap();
        for _ in 0..taken {
            assert!(next(&pipeline).unwrap().is_some());
        }
        if taken % 2 == 0 {
            pipeline.close();
            assert!(matches!(&*next(&pipeline).unwrap_err(), Error::Closed));
        }
    }
    assert_eq!(Arc::strong_count(&dataset), 1);
}

#[test]
fn memory_is_reused_and_waits_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[9, 9]);
    let dataset = open(LoaderConfig { num_epochs: None, ..config(folder.path()) }, 0, 1).unwrap();
    let pipeline = Pipeline::start(Arc::clone(&dataset), &Cursor::default(), None).unwrap();
    let mut addresses = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let batch = next(&pipeline).unwrap().unwrap();
        addresses.insert(batch.lease.arrays.images.as_ptr().addr());
    }
    // Three prefetched, one in the reader's hands, one that a thread begins meanwhile.
    assert!(addresses.len() <= 5, "{}", addresses.len());
    assert!(pipeline.stats().stages[Stage::Decode as usize].count >= 200);
    // A reader that keeps every batch gets fresh memory, not a deadlock.
    let kept: Vec<_> = (0..20).map(|_| next(&pipeline).unwrap().unwrap()).collect();
    assert_eq!(kept.len(), 20);
    let short = pipeline.next_within(Duration::ZERO).unwrap();
    assert!(matches!(short, Next::Waiting | Next::Batch(_)));
}
