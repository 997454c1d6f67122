"""The pre-norm transformer of both towers, with the parameter names of the released checkpoints.

Shapes: B batch, L tokens, W width, H heads.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from prolip.models.config import TextConfig, VisionConfig

TowerConfig = VisionConfig | TextConfig
Activation = Literal["exact", "tanh", "quick"]
"""GELU, its tanh approximation, or x * sigmoid(1.702 x)."""


class AttentionMask(NamedTuple):
    """Which tokens each token attends to: as a matrix, and in a form for fused kernels that take none."""

    allowed: Tensor
    """bool [Lq, Lk], or per image [B, 1, Lq or 1, Lk]"""
    causal: bool = False
    """Each token attends to itself and to those before it."""
    hidden: int | None = None
    """A key that no query attends to, except the query `seer`; all attend to all other keys."""
    seer: int | None = None
    """The query of the hidden token, which attends to all keys; None if it is not among the queries."""

    def of_rows(self, rows: slice) -> AttentionMask:
        """The mask for some of the queries."""
        length = self.allowed.shape[-2]
        if length == 1:  # the same keys for all queries
            return self
        if self.hidden is None and not self.causal:  # the code below would fix the length in an exported graph
            return AttentionMask(self.allowed[..., rows, :])
        first, last, _ = rows.indices(length)
        is_whole = last - first == length
        seer = None if self.seer is None or not first <= self.seer < last else self.seer - first
        return AttentionMask(self.allowed[..., rows, :], self.causal and is_whole, self.hidden, seer)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask | None = None) -> Tensor:
    """Attention of every query to the keys that `mask` allows (all if None), [B, H, Lq, W/H].

    On a CPU, two matrix products and a softmax are faster than the fused kernel (docs/benchmarks.md, "A training
    step"). On other devices the fused kernel stores no L x L matrix.
    """
    if query.device.type != "cpu":
        return attend_fused(query, key, value, mask)
    out: Tensor = _weights(query * query.shape[-1] ** -0.5, key, None if mask is None else mask.allowed) @ value
    return out


def attend_fused(query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask | None = None) -> Tensor:
    """`attend` with torch's kernels. Flash attention takes no mask matrix, so masks of a known form avoid it."""
    if mask is None:
        return F.scaled_dot_product_attention(query, key, value)
    if mask.causal:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)
    if mask.hidden is None:
        return F.scaled_dot_product_attention(query, key, value, mask.allowed)
    seen_key, seen_value = _without(key, mask.hidden), _without(value, mask.hidden)
    if mask.seer is None:
        return F.scaled_dot_product_attention(query, seen_key, seen_value)
    others = F.scaled_dot_product_attention(_without(query, mask.seer), seen_key, seen_value)
    own = F.scaled_dot_product_attention(query[..., mask.seer : mask.seer + 1, :], key, value)
    return torch.cat([others[..., : mask.seer, :], own, others[..., mask.seer :, :]], -2)


def _without(tokens: Tensor, token: int) -> Tensor:
    """All tokens [..., L, W] but one; a view if that one is the first or the last."""
    before, after = tokens[..., :token, :], tokens[..., token + 1 :, :]
    if token == 0:
        return after
    return before if after.shape[-2] == 0 else torch.cat([before, after], -2)


def _weights(scaled_query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    scores = scaled_query @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1)


class _SelfAttention(torch.autograd.Function):
    """`attend` of all tokens to all tokens, from the fused projection [B, L, 3 W] to [B, L, W].

    The same numbers as automatic differentiation with fewer copies: queries, keys and values are copied together, as
    are their gradients.
    """

    @staticmethod
    def forward(ctx: Any, packed: Tensor, heads: int, mask: Tensor | None) -> Tensor:
        query, key, value = _SelfAttention.by_head(packed, heads)
        if mask is not None and mask.ndim == 4:
            mask = mask.expand(-1, heads, -1, -1).flatten(0, 1)
        weights = _weights(query, key, mask)
        ctx.heads = heads
        ctx.save_for_backward(packed, weights)
        batch, length, _ = packed.shape
        return (weights @ value).view(batch, heads, length, -1).transpose(1, 2).flatten(2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        packed, weights = ctx.saved_tensors
        query, key, value = _SelfAttention.by_head(packed, ctx.heads)
        batch, length, _ = packed.shape
        split = (batch, length, ctx.heads, -1)
        upstream = gradient.reshape(split).transpose(1, 2).flatten(0, 1)
        grads = torch.empty((3, *query.shape), dtype=packed.dtype)
        torch.bmm(weights.transpose(1, 2), upstream, out=grads[2])
        grad_weights = torch.bmm(upstream, value.transpose(1, 2))
        grad_scores = torch.ops.aten._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
        torch.bmm(grad_scores, key, out=grads[0]).mul_(query.shape[-1] ** -0.5)
        torch.bmm(grad_scores.transpose(1, 2), query, out=grads[1])
        return grads.view(3, batch, ctx.heads, length, -1).permute(1, 3, 0, 2, 4).reshape(packed.shape), None, None

    @staticmethod
    def by_head(packed: Tensor, heads: int) -> tuple[Tensor, ...]:
        """Scaled queries, keys and values as copies, each [B * H, L, W/H]."""
        batch, length, _ = packed.shape
        parts = packed.view(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = parts.clone(memory_format=torch.contiguous_format).flatten(1, 2).unbind(0)
        return query.mul_(query.shape[-1] ** -0.5), key, value


def hide_token(mask: Tensor, token: int) -> Tensor:
    """`mask` [L, L] with `token` hidden from all other tokens."""
    hidden = mask.clone()
    hidden[:, token] = False
    hidden[token, token] = True
    return hidden


class Attention(nn.Module):
    """Multi-head self-attention with one fused query-key-value projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def _split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Split [B, L, parts * W] into `parts` tensors [B, H, L, W/H]."""
        batch, length, _ = x.shape
        return x.view(batch, length, parts, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    def forward(self, x: Tensor, rows: slice | None = None, mask: AttentionMask | None = None) -> Tensor:
        """Attention outputs of the tokens `rows`, [B, L', W], to those that `mask` allows; None for all."""
        width = x.shape[-1]
        if rows is None:
            packed = F.linear(x, self.in_proj_weight, self.in_proj_bias)
            # Not in an exported graph, which needs no gradient and would copy tensors that are scaled in place.
            if packed.device.type == "cpu" and not torch.compiler.is_exporting():
                allowed = None if mask is None else mask.allowed
                return cast(Tensor, self.out_proj(_SelfAttention.apply(packed, self.heads, allowed)))
            return self._read(mask, *self._split(packed, 3))
        query = F.linear(x[:, rows], self.in_proj_weight[:width], self.in_proj_bias[:width])
        return self._attend(query, x, None if mask is None else mask.of_rows(rows))

    def from_query(self, x: Tensor, query: Tensor, mask: AttentionMask | None = None) -> Tensor:
        """Attention of the vectors `query` [Lq, W] to the tokens `x` [B, L, W]; returns [B, Lq, W]."""
        width = x.shape[-1]
        probe = F.linear(query, self.in_proj_weight[:width], self.in_proj_bias[:width])
        return self._attend(probe.expand(x.shape[0], -1, -1), x, mask)

    def _attend(self, query: Tensor, x: Tensor, mask: AttentionMask | None) -> Tensor:
        width = x.shape[-1]
        key, value = self._split(F.linear(x, self.in_proj_weight[width:], self.in_proj_bias[width:]), 2)
        (split,) = self._split(query, 1)
        return self._read(mask, split, key, value)

    def _read(self, mask: AttentionMask | None, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out: Tensor = self.out_proj(attend(query, key, value, mask).transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    """Two linear maps around a GELU."""

    def __init__(self, width: int, hidden: int, *, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.c_fc = nn.Linear(width, hidden)
        self.c_proj = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to [B, L, W]."""
        hidden: Tensor = self.c_fc(x)
        if self.activation == "quick":
            hidden = hidden * torch.sigmoid(1.702 * hidden)
        else:
            hidden = F.gelu(hidden, approximate="none" if self.activation == "exact" else "tanh")
        out: Tensor = self.c_proj(hidden)
        return out


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, width: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), init))

    def forward(self, x: Tensor) -> Tensor:
        """Scale every channel of `x`."""
        return x * self.gamma


class Norm(nn.LayerNorm):
    """A layer norm in the dtype of its input. Weights gathered from shards may have a lower precision."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every token of `x`."""
        return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class Block(nn.Module):
    """x + g1 * attention(norm(x)), then x + g2 * mlp(norm(x))."""

    def __init__(self, config: TowerConfig, activation: Activation) -> None:
        super().__init__()
        width, scale = config.width, config.ls_init_value
        self.ln_1 = Norm(width, config.norm_eps)
        self.attn = Attention(width, config.heads)
        self.ls_1 = nn.Identity() if scale is None else LayerScale(width, scale)
        self.ln_2 = Norm(width, config.norm_eps)
        self.mlp = Mlp(width, int(width * config.mlp_ratio), activation=activation)
        self.ls_2 = nn.Identity() if scale is None else LayerScale(width, scale)

    def forward(self, x: Tensor, rows: slice | None = None, mask: AttentionMask | None = None) -> Tensor:
        """The tokens `rows` (all if None) after this block, [B, L', W]; `mask` as in `Attention`."""
        normed = self.ln_1(x)
        x = x if rows is None else x[:, rows]
        x = x + self.ls_1(self.attn(normed, rows, mask))
        out: Tensor = x + self.ls_2(self.mlp(self.ln_2(x)))
        return out


class AttentionPool(nn.Module):
    """Pools all tokens into one vector: attention of a learned query, then an MLP (SigLIP's head)."""

    def __init__(self, config: TowerConfig, activation: Activation) -> None:
        super().__init__()
        width = config.width
        self.latent = nn.Parameter(width**-0.5 * torch.randn(1, width))
        self.attn = Attention(width, config.heads)
        self.norm = nn.LayerNorm(width, config.norm_eps)
        self.mlp = Mlp(width, int(width * config.mlp_ratio), activation=activation)

    def forward(self, x: Tensor, mask: AttentionMask | None = None) -> Tensor:
        """Pool [B, L, W] into [B, W]; `mask` says which tokens count (all if None)."""
        pooled = self.attn.from_query(x, self.latent, mask)[:, 0]
        out: Tensor = pooled + self.mlp(self.norm(pooled))
        return out


class Transformer(nn.Module):
    """A stack of blocks that computes only the outputs it is asked for."""

    def __init__(self, config: TowerConfig, activation: Activation) -> None:
        super().__init__()
        self.recompute_every = 0
        self.resblocks = nn.ModuleList(Block(config, activation) for _ in range(config.layers))

    def blocks(self) -> list[Block]:
        """From first to last."""
        return [block for block in self.resblocks if isinstance(block, Block)]

    def forward(self, x: Tensor, rows: slice | None, mask: AttentionMask | None = None) -> Tensor:
        """The tokens `rows` (all if None) after all blocks, [B, L', W]; `mask` as in `Attention`.

        The last block computes queries and MLP for these alone. Every `recompute_every`-th block, from the first,
        stores only its input, and computes everything else again in the backward pass.
        """
        last = len(self.resblocks) - 1
        for index, block in enumerate(self.resblocks):
            wanted = rows if index == last else None
            if self.recompute_every and index % self.recompute_every == 0 and torch.is_grad_enabled():
                # Blocks draw no random numbers, so no generator needs to be restored.
                x = checkpoint(block, x, wanted, mask, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x, wanted, mask)
        return x
