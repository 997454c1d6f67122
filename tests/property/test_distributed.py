"""The loss over W ranks is the loss of one process on the concatenated batch: values and gradients, W = 1..5."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from tests.support.ranks import answer, asked_ranks
from torch import Tensor

from prolip.distributed import Peers
from prolip.gaussian import Gaussian
from prolip.losses import ProlipLoss
from prolip.losses.config import Contrast, LossConfig
from prolip.losses.ppcl import ppcl_reference
from prolip.models import ProLIPOutput

MAX_RANKS = 5
UNITS = 0.3, 0.6
"""Total variances at the start, of images and texts."""
TOWERS = ("image", "text", "masked_image", "masked_text")
Leaves = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """One batch, as its ranks hold it."""

    world_size: int
    items: int
    """B of each rank."""
    masked: int
    """M of each rank."""
    slots: int
    dim: int
    seed: int
    compiled: bool = False
    contrast: Contrast = "ppcl"
    variance_scale: float | None = None

    @property
    def config(self):
        return LossConfig(
            contrast=self.contrast,
            variance_scale=self.variance_scale,
            ppcl_weight=0.7,
            inclusion_weight=0.3,
            masked_inclusion_weight=0.2,
            vib_weight=0.1,
            inclusion_form="exact",
            inclusion_scale=3.0,
            vib_form="exact",
        )


@st.composite
def cases(draw):
    items = draw(st.integers(1, 7))
    return Case(
        world_size=draw(st.integers(1, MAX_RANKS)),
        items=items,
        masked=draw(st.integers(0, items)),
        slots=draw(st.integers(1, 3)),
        dim=draw(st.integers(1, 9)),
        seed=draw(st.integers(0, 2**20)),
        contrast=draw(st.sampled_from(["ppcl", "siglip"])),
        variance_scale=draw(st.none() | st.floats(0.5, 4)),
    )


def leaves_of(case, rank):
    """Outputs of one rank's towers, and the two scalars that all ranks share."""
    generator = torch.Generator().manual_seed(1000 * case.seed + rank)
    found = {}
    for tower in TOWERS:
        rows = case.masked if tower.startswith("masked") else case.items
        shape = (rows, case.dim) if tower.endswith("image") else (case.slots, rows, case.dim)
        found[f"{tower}_mean"] = 0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)
        found[f"{tower}_log_var"] = torch.randn(shape, generator=generator, dtype=torch.float64) - 3
    found["scale"] = torch.tensor(1.5, dtype=torch.float64)
    found["bias"] = torch.tensor(-2.0, dtype=torch.float64)
    return {name: value.requires_grad_() for name, value in found.items()}


def output_of(leaves):
    towers = [Gaussian(leaves[f"{tower}_mean"], leaves[f"{tower}_log_var"]) for tower in TOWERS]
    return ProLIPOutput(*towers, leaves["scale"].exp(), leaves["bias"])


def joined(case, ranks):
    """All ranks' items in one batch, whose first items are those that were masked, as the loss expects."""
    whole = {name: ranks[0][name] for name in ("scale", "bias")}
    for tower in ("image", "text"):
        for part in ("mean", "log_var"):
            name = f"{tower}_{part}"
            first = [leaves[name][..., : case.masked, :] for leaves in ranks]
            rest = [leaves[name][..., case.masked :, :] for leaves in ranks]
            whole[name] = torch.cat([*first, *rest], -2)
            whole[f"masked_{name}"] = torch.cat([leaves[f"masked_{name}"] for leaves in ranks], -2)
    return whole


def one_process(case, output):
    """The loss of the whole batch; the contrastive loss by its equation, not in tiles."""
    assert output.logit_bias is not None
    image, text = output.image, output.text
    if case.contrast == "siglip":
        image, text = Gaussian.point(image.mean), Gaussian.point(text.mean)
    elif case.variance_scale is not None:
        image, text = (Gaussian(one.mean, one.log_var.detach()) for one in (image, text))
    contrast = ppcl_reference(image, text, output.logit_scale, output.logit_bias)
    if case.variance_scale is not None:
        contrast = contrast + variance_reference(output, case.variance_scale)
    contrast = case.config.ppcl_weight * contrast
    others = ProlipLoss(replace(case.config, ppcl_weight=0.0), Peers())(output)
    return others._replace(ppcl=contrast, total=contrast + others.total)


def variance_reference(output, scale):
    """The variances' own contrastive loss by its equation (docs/specification.md, section 3.3)."""
    image, text = output.image, output.text
    relative = image.total_var[:, None] / UNITS[0] + text.total_var[..., None, :] / UNITS[1]
    similarity = image.mean.detach() @ text.mean.detach().mT
    logits = scale * (similarity - relative / 2 + 1) - math.log(len(image.mean))
    sign = 2 * torch.eye(len(image.mean), dtype=logits.dtype) - 1
    return -F.logsigmoid(sign * logits).sum(-1).mean()


def serve(rank, store, orders):
    """Run a rank for the whole module: it receives a case and sends its terms and gradients."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store.as_uri(), rank=rank, world_size=MAX_RANKS)
    groups = [dist.new_group(list(range(size))) for size in range(1, MAX_RANKS + 1)]
    orders.send("ready")
    while (case := orders.recv()) is not None:
        leaves = leaves_of(case, rank)
        loss = ProlipLoss(case.config, Peers(groups[case.world_size - 1]), variance_units=UNITS)
        moved = []

        def counted(collective, moved=moved):
            def run(output, given, **rest):
                moved.append(max(output.nbytes, given.nbytes))
                return collective(output, given, **rest)

            return run

        call = torch.compile(loss, fullgraph=True, backend="aot_eager") if case.compiled else loss
        with pytest.MonkeyPatch.context() as patch:
            for name in ("all_gather_into_tensor", "reduce_scatter_tensor"):
                if not case.compiled:
                    patch.setattr(dist, name, counted(getattr(dist, name)))
            terms = call(output_of(leaves))
            terms.total.backward()
        found = {"terms": torch.stack(terms).detach().numpy(), "moved": np.array(sum(moved))}
        orders.send(found | {name: leaf.grad.numpy() for name, leaf in leaves.items() if leaf.grad is not None})
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Five processes in groups of one to five, each with a pipe."""
    with asked_ranks(serve, MAX_RANKS, tmp_path_factory.mktemp("ranks") / "store") as ends:
        assert [answer(end) for end in ends] == ["ready"] * MAX_RANKS
        yield ends
        for end in ends:
            end.send(None)


@given(case=cases())
@settings(max_examples=60)
def test_loss_and_gradients_on_ranks_equal_one_process(ranks, case):
    check(ranks, case)


def test_a_compiled_loss_on_ranks_equals_one_process(ranks):
    check(ranks, Case(2, items=4, masked=1, slots=2, dim=5, seed=1, compiled=True, variance_scale=2.0))


def test_ranks_exchange_a_mean_and_a_number_per_text_and_their_gradients(ranks):
    case = Case(3, items=4, masked=1, slots=2, dim=5, seed=1)
    moved = check(ranks, case)
    assert moved == [2 * 3 * 2 * 4 * (5 + 1) * 8] * 3


def check(ranks, case):
    size = case.world_size
    for end in ranks[:size]:
        end.send(case)
    mine = [leaves_of(case, rank) for rank in range(size)]
    for leaves in mine[1:]:
        leaves.update(scale=mine[0]["scale"], bias=mine[0]["bias"])
    terms = one_process(case, output_of(joined(case, mine)))
    terms.total.backward()
    found = []
    for end in ranks[:size]:
        assert end.poll(120), "a rank hangs"
        found.append({name: torch.from_numpy(array) for name, array in end.recv().items()})
    mean_over_ranks = torch.stack([of_rank["terms"] for of_rank in found]).mean(0)
    torch.testing.assert_close(mean_over_ranks, torch.stack(terms).detach(), rtol=1e-12, atol=1e-14)
    # A data-parallel wrapper averages: a rank's own gradient counts 1 / W, the shared scalars' are averaged.
    for of_rank, leaves in zip(found, mine, strict=True):
        for name in leaves.keys() - {"scale", "bias"}:
            # Masked leaves without rows have no gradient.
            nothing = torch.zeros_like(leaves[name])
            expected = nothing if leaves[name].grad is None else leaves[name].grad
            largest = max((float(value.abs()) for value in expected.flatten()), default=0.0)
            given_back = of_rank.get(name, nothing) / size
            torch.testing.assert_close(given_back, expected, rtol=1e-9, atol=1e-13 + 1e-13 * largest)
    for name in ("scale", "bias"):
        averaged = torch.stack([of_rank[name] for of_rank in found]).mean()
        torch.testing.assert_close(averaged, mine[0][name].grad, rtol=1e-11, atol=1e-13)
    return [int(of_rank["moved"]) for of_rank in found]
