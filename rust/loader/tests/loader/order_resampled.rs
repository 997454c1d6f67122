//! Epochs over shards drawn with replacement.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::common::{config, open, read_all, write_shards};
use prolip_loader::config::{LastBatch, LoaderConfig, Mode};
use prolip_loader::error::Error;
use prolip_loader::order::{
    BatchPlan, BatchPlans, Cursor, OrderSettings, ShardList, ShardSampler, WeightedShards,
};
use prolip_loader::shards::SampleId;

const COUNTS: [u32; 7] = [3, 1, 0, 4, 2, 5, 9];

/// Three shards of weight 1, one of them empty, two of weight 3, and one that is never drawn. The last is in none.
fn sampler(num_samples: u64) -> ShardSampler {
    let source = |shards: &[u32], weight| WeightedShards { shards: shards.to_vec(), weight };
    let sources = vec![source(&[0, 1], 1.0), source(&[3, 4], 3.0), source(&[5], 0.0)];
    ShardSampler::new(sources, num_samples).unwrap()
}

fn shards_of(list: &ShardList) -> Vec<u32> {
    let mut samples = Vec::new();
    list.append_to(&mut samples, 0..list.total());
    let firsts = samples.iter().filter(|sample| sample.sample == 0);
    firsts.map(|sample| sample.shard).collect()
}

#[test]
fn shards_are_drawn_by_the_weights_of_their_patterns() {
    let drawn = shards_of(&ShardList::drawn(&COUNTS, &sampler(200_000), (3, 0)));
    let mut counts = BTreeMap::new();
    for &shard in &drawn {
        *counts.entry(shard).or_insert(0u32) += 1;
    }
    assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [0, 1, 3, 4]);
    let total = drawn.len() as f64;
    let close = |count: f64, share: f64| {
        // Six standard deviations of a binomial count.
        (count - share * total).abs() < 6.0 * (total * share * (1.0 - share)).sqrt()
    };
    for (shard, share) in [(0, 0.125), (1, 0.125), (3, 0.375), (4, 0.375)] {
        assert!(close(f64::from(counts[&shard]), share), "{shard}: {counts:?}");
    }
    // Draws are independent: a shard repeats as often as its share says.
    let repeated = drawn.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert!(close(repeated as f64, 2.0 * 0.125f64.powi(2) + 2.0 * 0.375f64.powi(2)));
    // So are epochs and seeds.
    for other in [(3, 1), (4, 0)] {
        let other = shards_of(&ShardList::drawn(&COUNTS, &sampler(200_000), other));
        let same = drawn.iter().zip(&other).filter(|(a, b)| a == b).count();
        assert!(close(same as f64, 2.0 * 0.125f64.powi(2) + 2.0 * 0.375f64.powi(2)));
    }
    assert_eq!(sampler(1).mean_samples(&COUNTS), 0.125 * 4.0 + 0.375 * 6.0);
}

#[test]
fn every_drawn_shard_except_the_last_is_read_completely() {
    for num_samples in 1..60 {
        let list = ShardList::drawn(&COUNTS, &sampler(num_samples), (1, 2));
        let mut samples = Vec::new();
        list.append_to(&mut samples, 0..list.total());
        assert_eq!(samples.len() as u64, num_samples);
        for pair in samples.windows(2) {
            let next_sample =
                pair[1].shard == pair[0].shard && pair[1].sample == pair[0].sample + 1;
            let next_shard =
                pair[1].sample == 0 && pair[0].sample + 1 == COUNTS[pair[0].shard as usize];
            assert!(next_sample || next_shard, "{pair:?}");
        }
    }
}

#[test]
fn ranks_split_the_drawn_shards_and_runs_resume_anywhere() {
    let rules = |rank, last_batch| OrderSettings {
        seed: 8,
        window: 6,
        batch_size: 4,
        rank,
        world_size: 3,
        last_batch,
        num_epochs: Some(2),
        streamed: false,
        num_samples: None,
        sampler: Some(Arc::new(sampler(50))),
    };
    let plans = |rank, last_batch, from: &Cursor| -> Vec<BatchPlan> {
        let mut route = BatchPlans::new(rules(rank, last_batch), from);
        std::iter::from_fn(|| route.next(&COUNTS.to_vec()).unwrap()).collect()
    };
    let start = Cursor::default();
    let mut read: Vec<SampleId> = Vec::new();
    for rank in 0..3 {
        let whole = plans(rank, LastBatch::Keep, &start);
        let first = whole.iter().filter(|plan| plan.epoch == 0);
        read.extend(first.flat_map(|plan| plan.samples.clone()));
        for stop in 0..whole.len() {
            assert_eq!(whole[stop + 1..], plans(rank, LastBatch::Keep, &whole[stop].cursor));
        }
        assert_eq!(plans(rank, LastBatch::Drop, &start).len(), 2 * 4);
        assert_eq!(plans(rank, LastBatch::Pad, &start).len(), 2 * 5);
    }
    let mut listed = Vec::new();
    rules(0, LastBatch::Keep).list(&COUNTS, 0).append_to(&mut listed, 0..50);
    read.sort_unstable();
    listed.sort_unstable();
    assert_eq!(read, listed);
}

#[test]
fn a_sample_has_new_draws_each_time_that_an_epoch_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[4]);
    let base = LoaderConfig { num_samples: Some(64), num_epochs: Some(1), ..config(folder.path()) };
    let resampled = LoaderConfig { mode: Mode::Resampled, ..base.clone() };
    let mut streamed = LoaderConfig {
        shards: vec![format!("pipe:cat {}/000.tar", folder.path().display())],
        ..base
    };
    streamed.store.allow_pipe = true;
    for config in [resampled, streamed] {
        let dataset = open(config, 0, 1).unwrap();
        let batches = read_all(&dataset, Cursor::default()).unwrap();
        assert_eq!(batches.len(), 16);
        let (mut images, mut patches) = (BTreeSet::new(), BTreeSet::new());
        for batch in &batches {
            images.extend(batch.images.chunks(dataset.image_bytes()));
            patches.extend(batch.kept_patches.chunks(8));
        }
        // Few are equal by chance, such as images without jitter, or in grey.
        assert!(images.len() > 40 && patches.len() > 25, "{} {}", images.len(), patches.len());
        let cursor = batches[6].cursor.clone();
        assert_eq!(read_all(&dataset, cursor).unwrap(), batches[7..]);
    }
}

#[test]
fn a_resampling_loader_reads_from_its_patterns() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[6, 2, 7]);
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let base = LoaderConfig {
        shards: vec![path("000.tar"), path("{001..002}.tar")],
        mode: Mode::Resampled,
        num_epochs: Some(1),
        ..config(folder.path())
    };
    let keys = |weights: &[f64], num_samples| -> Vec<String> {
        let config = LoaderConfig { weights: weights.to_vec(), num_samples, ..base.clone() };
        let dataset = open(config, 0, 1).unwrap();
        let batches = read_all(&dataset, Cursor::default()).unwrap();
        assert_eq!(Some(batches.len() as u64), dataset.num_batches());
        batches.into_iter().flat_map(|batch| batch.keys).collect()
    };
    // An epoch has 15 samples, so three full batches of four.
    assert_eq!(keys(&[], None).len(), 12);
    let second = keys(&[0.0, 2.0], Some(400));
    assert_eq!(second.len(), 400);
    let of =
        |keys: &[String], shard: &str| keys.iter().filter(|key| key.starts_with(shard)).count();
    assert_eq!(of(&second, "s0"), 0);
    assert!(of(&second, "s1") > 0 && of(&second, "s2") > 0);
    // The first is drawn 90 times as often: about 90 · 6 of its samples for 9 of the others.
    let mostly_first = keys(&[90.0, 1.0], Some(4_000));
    assert!(of(&mostly_first, "s0") > 3_700);

    let refused = |change: &dyn Fn(&mut LoaderConfig)| {
        let mut config = base.clone();
        change(&mut config);
        match open(config, 0, 1) {
            Err(Error::Config(error)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert!(
        refused(&|config| config.weights = vec![1.0])
            .starts_with("weights: must have one weight for")
    );
    assert!(refused(&|config| config.weights = vec![0.0, 0.0]).contains("their sum above 0"));
    assert!(refused(&|config| config.weights = vec![f64::NAN, 1.0]).contains("at least 0"));
    assert!(refused(&|config| config.num_samples = Some(0)).starts_with("num_samples: "));
    assert!(refused(&|config| config.num_samples = Some(u64::MAX)).contains("100,000,000 shards"));
    assert!(
        refused(&|config| (config.mode, config.weights) = (Mode::Once, vec![1.0, 1.0]))
            .contains("set mode to 'resampled'")
    );
    write_shards(folder.path(), &[0, 2, 7]);
    assert!(refused(&|config| config.weights = vec![1.0, 0.0]).contains("no shard of a pattern"));
}
