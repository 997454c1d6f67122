"""Which emoji are for training, validation and testing.

Emoji that show the same thing (a stem in common, or an equal picture in any design) stay on one side.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from prolip.data.build.shards import hash_rank
from prolip.demo.data.names import Emoji

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def connect(labels: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """The component of each key: keys with a label in common, directly or through others, get the same name.

    Returns:
        By key, the smallest key of its component.
    """
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
    pictures: Mapping[str, Iterable[str]],
    *,
    test_share: float,
    val_share: float,
    seed: int,
) -> dict[str, Split]:
    """The split of each base emoji, by `Emoji.key`.

    In each Unicode group whole components are dealt out in hashed order, first to test, then to validation, the rest to
    training; one that no longer fits into its share goes on to the next. So each group has its share in each split.

    Args:
        emoji: base emoji.
        pictures: by key, the picture ids of all designs.
        test_share: of the emoji of each group.
        val_share: likewise.
        seed: of the order.
    """
    component = connect({one.key: [*one.stems, *(f"picture {name}" for name in pictures[one.key])] for one in emoji})
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
    """`count` skin-tone variants, spread evenly: one of every base in hashed order, then a second of every base, …

    Args:
        variants: by base emoji, the keys of its variants.
        count: how many; fewer are returned if there are fewer.
        seed: of the orders.
    """
    queues = [
        sorted(variants[base], key=lambda key: hash_rank(seed, f"variant {key}"))
        for base in sorted(variants, key=lambda base: hash_rank(seed, f"base {base}"))
    ]
    rounds = max((len(queue) for queue in queues), default=0)
    ordered = [queue[turn] for turn in range(rounds) for queue in queues if turn < len(queue)]
    return ordered[:count]
