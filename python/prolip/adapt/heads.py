"""Train heads that predict variances from frozen embeddings.

B batch, D embedding.
"""

from __future__ import annotations

import math
import sys

import torch
from torch import nn
from tqdm import tqdm

from prolip.adapt.config import HeadsConfig
from prolip.adapt.logits import Logits
from prolip.adapt.pairs import PairRows, Pairs
from prolip.distributed import Peers
from prolip.gaussian import Gaussian
from prolip.losses import LossConfig, LossTerms, ProlipLoss
from prolip.models import ProLIPOutput
from prolip.models.adapter import Adapter, VarianceHead

WARM_UP = 0.05
"""Share of the steps in which the learning rate rises."""
LOGIT_LR_FACTOR = 10.0
"""Factor on the learning rate of scale and bias."""


def start_heads(adapter: Adapter, start: Logits) -> None:
    """Start an adapter at the frozen model's means, with a total variance of 1 / scale and the logits of `start`.

    These variances lower every logit by 1, so the bias is raised by 1.
    """
    adapter.set_logits(start.scale, start.bias + 1.0)
    for head in (adapter.image, adapter.text):
        assert isinstance(head, VarianceHead)
        nn.init.constant_(head.log_var.bias, -math.log(start.scale * adapter.config.embed_dim))


def forward(adapter: Adapter, batch: PairRows) -> ProLIPOutput:
    """The Gaussians of a batch of pairs and of their masked views."""
    text: Gaussian = adapter.text(batch.text[None])
    masked_image = None if batch.masked_image is None else adapter.image(batch.masked_image)
    masked_text = None if batch.masked_text is None else adapter.text(batch.masked_text[None])
    scale = adapter.logit_scale.exp()
    return ProLIPOutput(adapter.image(batch.image), text, masked_image, masked_text, scale, adapter.logit_bias)


def fit_heads(adapter: Adapter, pairs: Pairs, config: HeadsConfig, loss: LossConfig) -> list[LossTerms]:
    """Train an adapter's heads, scale and bias; returns the mean terms of the first and last tenth of the steps.

    Args:
        adapter: started by `start_heads`.

    Raises:
        RuntimeError: the loss is not finite.
    """
    start = 1.0 / float(adapter.logit_scale.detach().exp())  # every item's total variance
    measure = ProlipLoss(loss, Peers(), variance_units=(start, start))
    heads = [*adapter.image.parameters(), *adapter.text.parameters()]
    logits = [adapter.logit_scale, adapter.logit_bias]
    groups = (
        ([one for one in heads if one.ndim > 1], config.weight_decay, 1.0),
        ([one for one in heads if one.ndim < 2], 0.0, 1.0),
        (logits, 0.0, LOGIT_LR_FACTOR),
    )
    optimizer = torch.optim.AdamW(
        [{"params": some, "weight_decay": decay, "factor": factor} for some, decay, factor in groups],
        lr=config.lr,
        betas=(0.9, 0.98),
        fused=True,
    )
    batches = pairs.batches(config.batch_size, config.seed)
    history: list[LossTerms] = []
    adapter.train()
    for step in tqdm(range(config.steps), desc="heads", unit="step", file=sys.stderr, disable=None):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step) * group["factor"]
        terms = measure(forward(adapter, next(batches)))
        if not bool(terms.total.isfinite()):
            values = {name: float(value.detach()) for name, value in terms._asdict().items()}
            raise RuntimeError(f"the loss at step {step} must be finite (got {values})")
        optimizer.zero_grad()
        terms.total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(adapter.parameters(), 1.0)
        optimizer.step()
        history.append(LossTerms(*(term.detach() for term in terms)))
    adapter.eval()
    share = max(1, config.steps // 10)
    columns = [torch.stack(list(column)) for column in zip(*history, strict=True)]
    return [LossTerms(*(column[part].mean() for column in columns)) for part in (slice(share), slice(-share, None))]


def learning_rate(config: HeadsConfig, step: int) -> float:
    """Linear warm-up, then half a cosine."""
    warm_up = max(1, int(WARM_UP * config.steps))
    if step < warm_up:
        return config.lr * (step + 1) / warm_up
    return 0.5 * config.lr * (1.0 + math.cos(math.pi * (step - warm_up) / max(1, config.steps - warm_up)))
