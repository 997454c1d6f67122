"""Split the emoji into training, validation and test.

Emoji that show the same thing (a common stem, or an equal image in any design) are in the same split.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Literal

from prolip.build.emoji.names import Emoji
from prolip.build.shards import hash_rank

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def connect(labels: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """For each key, the smallest key of its connected component: keys with a common label are connected."""
    parent: dict[str, str] = {key: key for key in labels}

    def root(key: str) -> str:
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    owner: dict[str, str] = {}
    for key, own in labels.items():
        for label in own:
            one, other = sorted((root(key), root(owner.setdefault(label, key))))
            parent[other] = one
    return {key: root(key) for key in labels}


def split_emoji(
    emoji: Sequence[Emoji],
    images: Mapping[str, Iterable[str]],
    *,
    test_share: float,
    val_share: float,
    seed: int,
) -> dict[str, Split]:
    """The split of each base emoji, by `Emoji.key`.

    In each of Unicode's groups, whole components are assigned in hashed order: first to test, then to validation, the
    rest to training. One that does not fit into its share goes to the next split. `images` are the image ids of all
    designs, by key.
    """
    component = connect({one.key: [*one.stems, *(f"image {name}" for name in images[one.key])] for one in emoji})
    members: dict[str, list[Emoji]] = defaultdict(list)
    for one in emoji:
        members[component[one.key]].append(one)
    home = {name: Counter(one.group for one in own).most_common(1)[0][0] for name, own in members.items()}
    splits: dict[str, Split] = {}
    for group in dict.fromkeys(one.group for one in emoji):
        ordered = sorted((name for name in members if home[name] == group), key=lambda name: hash_rank(seed, name))
        size = sum(len(members[name]) for name in ordered)
        room = {"test": round(test_share * size), "val": round(val_share * size)}
        for name in ordered:
            split: Split = "train"
            for candidate in ("test", "val"):
                if len(members[name]) <= room[candidate]:
                    split = candidate
                    room[candidate] -= len(members[name])
                    break
            splits.update({one.key: split for one in members[name]})
    return splits


def choose_variants(variants: Mapping[str, Sequence[str]], count: int, seed: int) -> list[str]:
    """Choose `count` variants evenly: one of every base in hashed order, then a second of every base, etc.

    `variants` are keys by base emoji. All are returned if there are too few.
    """
    queues = [
        sorted(variants[base], key=lambda key: hash_rank(seed, f"variant {key}"))
        for base in sorted(variants, key=lambda base: hash_rank(seed, f"base {base}"))
    ]
    return [key for turn in zip_longest(*queues) for key in turn if key is not None][:count]
