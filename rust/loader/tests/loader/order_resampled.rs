//! Epochs over shards drawn with replacement.

use prolip_loader::config::LastBatch;
use prolip_loader::order::{
    BatchPlan, BatchPlans, Cursor, OrderSettings, ShardList, ShardSampler, WeightedShards,
};
use prolip_loader::shards::SampleId;
use std::collections::BTreeMap;
use std::sync::Arc;

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
    // Draws are independent, within an epoch and between epochs: two are equal as often as the shares say.
    let equal = 2.0 * 0.125f64.powi(2) + 2.0 * 0.375f64.powi(2);
    let next = shards_of(&ShardList::drawn(&COUNTS, &sampler(200_000), (3, 1)));
    for other in [&drawn[1..], &next] {
        let same = drawn.iter().zip(other).filter(|(a, b)| a == b).count();
        assert!(close(same as f64, equal));
    }
    assert_eq!(sampler(1).mean_samples(&COUNTS), 0.125 * 4.0 + 0.375 * 6.0);
}

#[test]
fn ranks_split_the_drawn_shards_and_runs_resume_anywhere() {
    let rules = |rank, last_batch| OrderSettings {
        seed: 8,
        window: 6,
        batch_size: 4,
        native: None,
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
