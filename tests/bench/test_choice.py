"""Choosing samples beside the plain loop, and super-batches: `pytest -m bench tests/bench/test_choice.py -s`."""

import pytest
import torch
import torch.nn.functional as F
from tests.bench.side_by_side import in_turns, one_thread, peak_bytes
from tests.support.small_training import write_shard
from torch import Tensor

from prolip.data import AugmentConfig, BatchLoader, LoaderConfig
from prolip.gaussian import Gaussian, csd_logits
from prolip.losses.choice import Judge, Side, choose, choose_reference

CHUNKS = 16


def gaussians(count: int, dim: int, seed: int) -> Gaussian:
    mean, log_var = torch.randn(2, count, dim, generator=torch.Generator().manual_seed(seed))
    return Gaussian(F.normalize(mean, dim=-1), log_var - 8)


@pytest.mark.bench
@pytest.mark.timeout(1800)
def test_choosing_beside_the_plain_loop_over_chunks(full):
    count, chosen, dim = (10_240, 2_048, 768) if full else (160, 32, 8)
    scale, bias = torch.tensor(50.0), torch.tensor(-10.0)
    items = [gaussians(count, dim, seed) for seed in range(4)]
    sides = [Side.of(each[None]) for each in items]
    judges = [Judge(*sides[:2], scale, bias), Judge(*sides[2:], scale, bias, -1.0)]

    def plain() -> Tensor:
        sign = 2 * torch.eye(count) - 1
        losses = torch.zeros(count, count)
        for weight, image, text in ((1, *items[:2]), (-1, *items[2:])):
            losses -= weight * F.logsigmoid(sign * csd_logits(image, text, scale, bias))
        return choose_reference(losses, chosen, CHUNKS)

    same = len(set(plain().tolist()) & set(choose(judges, chosen, CHUNKS)[0].tolist()))
    assert same > 0.99 * chosen, "equal scores aside, which rounding may order"
    with one_thread():
        ratio = in_turns(plain, lambda: choose(judges, chosen, CHUNKS), rounds=3 if full else 1, repeats=1)
        bytes_of = [peak_bytes(work) / 2**20 for work in (plain, lambda: choose(judges, chosen, CHUNKS))]
    print(f"\nplain {ratio}; {bytes_of[0]:,.1f} MiB against {bytes_of[1]:,.1f}")
    assert not full or (ratio.low > 1 and bytes_of[1] < bytes_of[0] / 4)


@pytest.mark.bench
@pytest.mark.timeout(1800)
def test_the_loader_reads_super_batches_as_fast_as_batches(tmp_path, full):
    write_shard(tmp_path / "train.tar", range(1_280 if full else 64), sizes=((320, 240),) if full else ((12, 12),))
    batch, epochs = (64, 16) if full else (4, 1)

    def read(size: int) -> None:
        config = LoaderConfig(
            shards=(str(tmp_path / "train.tar"),),
            batch_size=size,
            image_size=224 if full else 12,
            augment=AugmentConfig(),
            captions=(),
            num_epochs=epochs,
        )
        with BatchLoader(config) as loader:
            assert sum(len(found.keys) for found in loader) >= 60

    ratio = in_turns(lambda: read(batch), lambda: read(5 * batch), rounds=7 if full else 1, repeats=1)
    print(f"\nimages/s at super-batches over batches: {ratio.ratio:.3f} ({ratio.low:.3f} to {ratio.high:.3f})")
    assert not full or ratio.ratio >= 0.97
