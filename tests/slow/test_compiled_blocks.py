"""Blocks are compiled once for all. That they give the same gradients is in test_parallel.py."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from tests.support.small_step import ALONE, CONFIG, gradients, step_of

from prolip.models import ProLIP
from prolip.train.config.parallel import ParallelConfig
from prolip.train.parallel import share_model

DEEP = replace(CONFIG, vision=replace(CONFIG.vision, layers=3), text=replace(CONFIG.text, layers=3))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_each_input_shape_is_compiled_once_for_all_blocks(monkeypatch):
    graphs = []
    dynamic = []

    def backend(graph, inputs):
        graphs.append(graph)
        dynamic.extend(one for one in inputs if isinstance(one, torch.SymInt))
        dynamic.extend(
            side for one in inputs if isinstance(one, torch.Tensor) for side in one.shape if type(side) is not int
        )
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    network = share_model(ProLIP(DEEP), ParallelConfig(compile=True), ALONE, torch.float32)
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
