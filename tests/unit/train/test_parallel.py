"""Recomputed and compiled blocks give the gradients of plain ones, under the same names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from tests.support.small_step import CONFIG, assert_same, gradients, step_of
from torch.fx import GraphModule

from prolip.distributed import Ranks
from prolip.models import ModelConfig, ProLIP
from prolip.train.config.sections import ParallelConfig
from prolip.train.parallel import share_model

ALONE = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))
DEEP = replace(CONFIG, vision=replace(CONFIG.vision, layers=3), text=replace(CONFIG.text, layers=3))


def model_of(config: ModelConfig = DEEP) -> ProLIP:
    torch.manual_seed(3)
    return ProLIP(config)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo's own look at it
@pytest.mark.parametrize(
    ("changes", "items", "parts"),
    [
        ({"recompute_every": 1}, 7, 1),
        ({"recompute_every": 2}, 7, 3),
    ],
)
def test_compiling_or_recomputing_blocks_changes_no_gradient(
    changes: dict[str, Any], items: int, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Inductor would need a C++ compiler and half a minute; what is traced and cut into graphs is the same.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    plain, batch = model_of(), step_of(items, 3)
    terms, expected = gradients(plain, batch, parts)
    model = model_of()
    network = share_model(model, ParallelConfig(**changes), ALONE, torch.float32)
    found_terms, found = gradients(network, batch, parts)
    torch.testing.assert_close(torch.stack(found_terms), torch.stack(terms), rtol=1e-6, atol=1e-7)
    assert_same(found, expected)
    assert list(model.state_dict()) == list(plain.state_dict())
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_each_input_shape_is_compiled_once_for_all_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[GraphModule] = []
    dynamic: list[object] = []

    def backend(graph: GraphModule, inputs: Sequence[object]) -> GraphModule:
        graphs.append(graph)
        dynamic.extend(one for one in inputs if isinstance(one, torch.SymInt))
        dynamic.extend(
            side for one in inputs if isinstance(one, torch.Tensor) for side in one.shape if type(side) is not int
        )
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    network = share_model(model_of(), ParallelConfig(compile=True), ALONE, torch.float32)
    gradients(network, step_of(7, 3), 1)
    first = len(graphs)
    # Two towers, whole and masked, all rows and the last block's; the text tower's views have the same shapes but one.
    assert 0 < first <= 8
    for _ in range(2):
        gradients(network, step_of(7, 3), 1)
    assert len(graphs) == first
    gradients(network, step_of(6, 2), 1)  # another batch: other graphs, not one for all sizes
    assert first < len(graphs) <= 2 * first
    assert dynamic == []
    torch._dynamo.reset()
