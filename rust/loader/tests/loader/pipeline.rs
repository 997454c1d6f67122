//! The whole loader on small shards: what it returns, and how it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::{archive, config, member, next, open, png, read_all, tokenizer, write_shards};
use prolip_loader::config::{LastBatch, LoaderConfig, PatchDraw, TextMode};
use prolip_loader::error::Error;
use prolip_loader::order::{Cursor, Leg};
use prolip_loader::pipeline::{Dataset, Next, Pipeline, Stage};

#[test]
fn batches_do_not_depend_on_threads_or_prefetch() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[7, 0, 9, 5]);
    let read = |num_threads, prefetch_batches| {
        let dataset =
            open(LoaderConfig { num_threads, prefetch_batches, ..config(folder.path()) }, 0, 1)
                .unwrap();
        read_all(&dataset, Cursor::default()).unwrap()
    };
    let one = read(1, 1);
    assert_eq!(one.len(), 10);
    assert_eq!(one, read(4, 2));
    assert_eq!(one, read(3, 50));
}

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
fn ranks_split_an_epoch_and_may_change_within_it() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[7, 9, 13]);
    let read = |(world_size, batch_size): (usize, usize), rank, from: &Cursor| {
        let dataset = open(
            LoaderConfig {
                batch_size,
                mask: None,
                num_epochs: Some(1),
                last_batch: LastBatch::Keep,
                ..config(folder.path())
            },
            rank,
            world_size,
        )
        .unwrap();
        dataset.check_cursor(from).unwrap();
        read_all(&dataset, from.clone()).unwrap()
    };
    let mut keys = Vec::new();
    let mut from = Cursor::default();
    for (ranks, steps) in [((3, 2), 2), ((2, 3), 1), ((1, 2), 3), ((4, 2), 9)] {
        let mut to = from.clone();
        for rank in 0..ranks.0 {
            let batches = read(ranks, rank, &from).into_iter().take(steps);
            for batch in batches {
                to = batch.cursor;
                keys.extend(batch.keys);
            }
        }
        from = to;
    }
    keys.sort_unstable();
    let before = keys.len();
    keys.dedup();
    assert_eq!((before, keys.len()), (29, 29));
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
fn a_padded_epoch_fills_its_last_batch_with_its_first_samples() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[3, 4]);
    let config = LoaderConfig {
        last_batch: LastBatch::Pad,
        shuffle_window: 0,
        num_epochs: Some(1),
        ..config(folder.path())
    };
    let batches = read_all(&open(config, 0, 1).unwrap(), Cursor::default()).unwrap();
    assert_eq!(batches[1].keys, ["s1-1", "s1-2", "s1-3", "s0-0"]);
    // The same sample in the same epoch, so the same image.
    let pixels = 8 * 8 * 3;
    assert_eq!(batches[1].images[3 * pixels..], batches[0].images[..pixels]);
}

#[test]
fn a_short_last_batch_keeps_the_memory_of_a_full_one() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[7]);
    let config =
        LoaderConfig { last_batch: LastBatch::Keep, num_epochs: Some(5), ..config(folder.path()) };
    let dataset = open(config, 0, 1).unwrap();
    let pipeline = Pipeline::start(Arc::clone(&dataset), &Cursor::default()).unwrap();
    while let Some(batch) = next(&pipeline).unwrap() {
        let memory = &batch.lease.arrays;
        assert_eq!(memory.images.len(), 4 * dataset.image_bytes());
        assert_eq!(memory.token_ids.len(), 2 * batch.samples.len() * 12);
        assert_eq!(batch.masked_rows, batch.samples.len() / 2);
    }
}

#[test]
fn the_cleaner_is_called_once_per_batch() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let folder = tempfile::tempdir().unwrap();
    let parts: Vec<Vec<u8>> = (0..8)
        .map(|index| {
            [
                member(&format!("{index}.png"), &png(9, 9, [0; 3])),
                member(&format!("{index}.txt"), "th\u{e9}".as_bytes()),
                member(
                    &format!("{index}.json"),
                    "{\"levels\": {\"group\": \"c\u{e9}\"}}".as_bytes(),
                ),
            ]
            .concat()
        })
        .collect();
    std::fs::write(folder.path().join("0.tar"), archive(&parts)).unwrap();
    let mut config = config(folder.path());
    config.captions.truncate(1);
    config.mask.as_mut().unwrap().general_prob = 1.0;
    let clean = || {
        CALLS.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    let dataset = Dataset::open(config, Some(tokenizer(clean)), 0, 1, &AtomicBool::new(false));
    let batches = read_all(&Arc::new(dataset.unwrap()), Cursor::default()).unwrap();
    assert_eq!((batches.len(), CALLS.load(Ordering::Relaxed)), (4, 4));
    assert_ne!(batches[0].masked_token_ids[..12], batches[0].token_ids[..12]);
}

#[test]
fn waiting_is_counted_also_without_a_batch() {
    let folder = tempfile::tempdir().unwrap();
    let parts: Vec<Vec<u8>> = (0..8)
        .map(|index| {
            [
                member(&format!("{index}.png"), &png(9, 9, [0; 3])),
                member(&format!("{index}.txt"), "th\u{e9}".as_bytes()),
            ]
            .concat()
        })
        .collect();
    std::fs::write(folder.path().join("0.tar"), archive(&parts)).unwrap();
    let config = LoaderConfig {
        captions: config(folder.path()).captions[..1].to_vec(),
        keep_members: Vec::new(),
        mask: None,
        num_threads: 1,
        num_epochs: Some(1),
        ..config(folder.path())
    };
    let clean = || {
        std::thread::sleep(Duration::from_millis(100));
        Ok(())
    };
    let dataset = Dataset::open(config, Some(tokenizer(clean)), 0, 1, &AtomicBool::new(false));
    let pipeline = Pipeline::start(Arc::new(dataset.unwrap()), &Cursor::default()).unwrap();
    let mut batches = 0;
    loop {
        match pipeline.next_within(Duration::from_millis(5)).unwrap() {
            Next::Batch(_) => batches += 1,
            Next::End => break,
            Next::Waiting => {}
        }
    }
    let wait = pipeline.stats().stages[Stage::Wait as usize];
    assert_eq!((batches, wait.count), (2, 2));
    assert!(wait.seconds > 0.15, "{}", wait.seconds);
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
        let pipeline = Pipeline::start(Arc::clone(&dataset), &Cursor::default()).unwrap();
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
    let pipeline = Pipeline::start(Arc::clone(&dataset), &Cursor::default()).unwrap();
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

#[test]
fn threads_share_open_files() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[6; 12]);
    let config = LoaderConfig {
        num_threads: 8,
        prefetch_batches: 8,
        shuffle_window: 1000,
        num_epochs: None,
        ..config(folder.path())
    };
    let pipeline = Pipeline::start(open(config, 0, 1).unwrap(), &Cursor::default()).unwrap();
    for _ in 0..200 {
        next(&pipeline).unwrap().unwrap();
    }
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    let shards = links
        .filter_map(|link| std::fs::read_link(link.unwrap().path()).ok())
        .filter(|path| path.starts_with(folder.path()));
    assert_eq!(shards.count(), 12);
}
