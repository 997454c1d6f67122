use super::{ChaCha8Rng, Rng as _, SampleRng, SeedableRng, stream};
use proptest::prelude::*;

#[test]
fn draws_have_known_values() {
    let mut rng = SampleRng::new(1, 2, 3, stream::MASK);
    let words: Vec<u32> = (0..4).map(|_| rng.below(1_000_000)).collect();
    // The first words of ChaCha8 for this key, from another implementation.
    assert_eq!(words, [387_474, 570_518, 259_899, 379_891]);
    let mut key = [0u8; 32];
    (key[0], key[8], key[16], key[24]) = (1, 2, 3, 2);
    let mut direct = ChaCha8Rng::from_seed(key);
    let mut rng = SampleRng::new(1, 2, 3, stream::MASK);
    assert_eq!(rng.uniform(), (direct.next_u64() >> 11) as f64 / 9_007_199_254_740_992.0);
}

proptest! {
    #[test]
    fn shuffle_gives_a_permutation(seed in any::<u64>(), length in 0usize..200) {
        let mut items: Vec<usize> = (0..length).collect();
        SampleRng::new(seed, 0, 0, 0).shuffle(&mut items);
        items.sort_unstable();
        prop_assert_eq!(items, (0..length).collect::<Vec<_>>());
    }
}
