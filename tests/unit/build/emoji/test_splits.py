"""The split of emoji: shares hold in every group, and what shows the same stays together."""

from collections import Counter

import pytest

from prolip.build.emoji.names import Emoji
from prolip.build.emoji.splits import choose_variants, split_emoji
from prolip.build.shards import hash_rank


def emoji(number, group="g", name=None):
    name = name or f"thing{number}"
    return Emoji(codepoints=(f"{0x1F000 + number:X}",), name=name, base_name=name, group=group, subgroup="s")


def test_seeded_ranks_have_fixed_values():
    assert hash_rank(0, "blowfish") == 0xAB75AA7184FBAC0
    assert hash_rank(0, "blowfish") != hash_rank(1, "blowfish")
    assert 0 <= hash_rank(0, "blowfish") < 2**64


def test_shares_hold_in_every_group():
    listed = [emoji(number, "ab"[number % 2]) for number in range(400)]
    splits = split_emoji(listed, {one.key: [one.key] for one in listed}, test_share=0.15, val_share=0.05, seed=0)
    for group in "ab":
        assert Counter(splits[one.key] for one in listed if one.group == group) == {"train": 160, "test": 30, "val": 10}


def test_emoji_that_show_the_same_are_in_one_split():
    """Equal images, and a stem that only the name shows; the pairs are so many that chance could not keep them."""
    listed = [emoji(number) for number in range(200)]
    images = {one.key: [f"own {number}", f"pair {number // 2}"] for number, one in enumerate(listed)}
    splits = split_emoji(listed, images, test_share=0.3, val_share=0.2, seed=0)
    assert all(splits[listed[place].key] == splits[listed[place + 1].key] for place in range(0, 200, 2))
    named = [emoji(number, name=f"{'man' if number % 2 else 'woman'} doing {number // 2}") for number in range(200)]
    splits = split_emoji(named, {one.key: [one.key] for one in named}, test_share=0.3, val_share=0.2, seed=0)
    assert all(splits[named[place].key] == splits[named[place + 1].key] for place in range(0, 200, 2))
    assert set(splits.values()) == {"train", "val", "test"}


@pytest.mark.parametrize("seed", range(30))
def test_components_larger_than_a_share_go_to_training(seed):
    """Forty emoji with one image are more than either share: they are for training, and the shares hold."""
    listed = [emoji(number) for number in range(100)]
    images = {one.key: ["same" if number < 40 else one.key] for number, one in enumerate(listed)}
    splits = split_emoji(listed, images, test_share=0.15, val_share=0.05, seed=seed)
    assert Counter(splits.values()) == {"train": 80, "test": 15, "val": 5}
    assert {splits[one.key] for one in listed[:40]} == {"train"}


def test_variants_are_spread_evenly_over_base_emoji():
    variants = {f"base{number}": [f"{number}-{tone}" for tone in range(5)] for number in range(10)}
    chosen = choose_variants(variants, 25, seed=0)
    counts = Counter(key.split("-")[0] for key in chosen)
    assert len(set(chosen)) == 25
    assert sorted(counts.values()) == [2] * 5 + [3] * 5
    assert len({key.split("-")[1] for key in chosen[:10]}) > 1, "not the same tone for every base"
    assert choose_variants(variants, 25, seed=0) == chosen
    assert choose_variants(variants, 1000, seed=0)[:25] == chosen
    assert len(choose_variants(variants, 1000, seed=0)) == 50
