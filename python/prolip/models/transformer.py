"""The pre-norm transformer both towers share, with the parameter names of the released checkpoints.

Shapes: B batch, L tokens, W width, H heads.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Activation = Literal["exact", "tanh", "quick"]
"""GELU, its tanh approximation, or x * sigmoid(1.702 x)."""


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention of every query to every key, or to those where `mask` [Lq, Lk] is true, [B, H, Lq, W/H].

    On a CPU two matrix products and a softmax beat the fused kernel (docs/benchmarks.md, "A training step"); elsewhere
    the fused kernel keeps no L x L matrix.
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, mask)
    out: Tensor = _shares(query * query.shape[-1] ** -0.5, key, mask) @ value
    return out


def _shares(scaled_query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """What part of every query's attention each key has, [..., Lq, Lk]."""
    scores = scaled_query @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1)


class _SelfAttention(torch.autograd.Function):
    """`attend` of all tokens to all, from the packed projection [B, L, 3 W] to [B, L, W].

    The same numbers as by automatic differentiation with one copy each way: queries, keys and values are brought into
    the order of the matrix products together, and so are their gradients.
    """

    @staticmethod
    def forward(ctx: Any, packed: Tensor, heads: int, mask: Tensor | None) -> Tensor:
        query, key, value = _SelfAttention.by_head(packed, heads)
        shares = _shares(query, key, mask)
        ctx.heads = heads
        ctx.save_for_backward(packed, shares)
        batch, length, _ = packed.shape
        return (shares @ value).view(batch, heads, length, -1).transpose(1, 2).flatten(2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        packed, shares = ctx.saved_tensors
        query, key, value = _SelfAttention.by_head(packed, ctx.heads)
        batch, length, _ = packed.shape
        split = (batch, length, ctx.heads, -1)
        upstream = gradient.reshape(split).transpose(1, 2).flatten(0, 1)
        found = torch.empty((3, *query.shape), dtype=packed.dtype)
        torch.bmm(shares.transpose(1, 2), upstream, out=found[2])
        of_shares = torch.bmm(upstream, value.transpose(1, 2))
        of_scores = torch.ops.aten._softmax_backward_data(of_shares, shares, -1, shares.dtype)
        torch.bmm(of_scores, key, out=found[0]).mul_(query.shape[-1] ** -0.5)
        torch.bmm(of_scores.transpose(1, 2), query, out=found[1])
        return found.view(3, batch, ctx.heads, length, -1).permute(1, 3, 0, 2, 4).reshape(packed.shape), None, None

    @staticmethod
    def by_head(packed: Tensor, heads: int) -> tuple[Tensor, ...]:
        """Scaled queries, keys and values, each [B * H, L, W/H], in memory of their own."""
        batch, length, _ = packed.shape
        parts = packed.view(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = parts.clone(memory_format=torch.contiguous_format).flatten(1, 2).unbind(0)
        return query.mul_(query.shape[-1] ** -0.5), key, value


class _GeluLinear(torch.autograd.Function):
    """A linear map of the GELU, which is computed again for the backward pass: a fifth less memory for one part in a
    hundred more time.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, approximate: str) -> Tensor:
        ctx.approximate = approximate
        ctx.save_for_backward(hidden, weight)
        # Under autocast what went before decides the type.
        return F.linear(F.gelu(hidden, approximate=approximate), weight.to(hidden.dtype), bias.to(hidden.dtype))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        hidden, weight = ctx.saved_tensors
        of_hidden = of_weight = of_bias = None
        if ctx.needs_input_grad[1]:
            again = F.gelu(hidden, approximate=ctx.approximate)
            of_weight = gradient.flatten(0, -2).T @ again.flatten(0, -2)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.flatten(0, -2).sum(0)
        if ctx.needs_input_grad[0]:
            of_gelu = gradient @ weight.to(gradient.dtype)
            of_hidden = torch.ops.aten.gelu_backward(of_gelu, hidden, approximate=ctx.approximate)
        return of_hidden, of_weight, of_bias, None


def unseen(mask: Tensor, token: int) -> Tensor:
    """`mask` [L, L] where no other token attends to that one."""
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
        """[B, L, parts * W] to `parts` tensors of [B, H, L, W/H]."""
        batch, length, _ = x.shape
        return x.view(batch, length, parts, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    def forward(self, x: Tensor, rows: slice | None = None, mask: Tensor | None = None) -> Tensor:
        """Attention outputs for the tokens `rows` (all if None), [B, L', W].

        Each token attends to those where its row of `mask` [L, L] is true, to all if None.
        """
        width = x.shape[-1]
        if rows is None:
            packed = F.linear(x, self.in_proj_weight, self.in_proj_bias)
            if packed.device.type == "cpu":
                return cast(Tensor, self.out_proj(_SelfAttention.apply(packed, self.heads, mask)))
            query, key, value = self._split(packed, 3)
        else:
            mask = None if mask is None else mask[rows]
            (query,) = self._split(F.linear(x[:, rows], self.in_proj_weight[:width], self.in_proj_bias[:width]), 1)
            key, value = self._split(F.linear(x, self.in_proj_weight[width:], self.in_proj_bias[width:]), 2)
        out: Tensor = self.out_proj(attend(query, key, value, mask).transpose(1, 2).flatten(2))
        return out

    def from_query(self, x: Tensor, query: Tensor) -> Tensor:
        """Attention of vectors [Lq, W] to all tokens `x` [B, L, W], [B, Lq, W]."""
        width = x.shape[-1]
        key, value = self._split(F.linear(x, self.in_proj_weight[width:], self.in_proj_bias[width:]), 2)
        probe = F.linear(query, self.in_proj_weight[:width], self.in_proj_bias[:width])
        (split,) = self._split(probe.expand(len(x), -1, -1), 1)
        out: Tensor = self.out_proj(attend(split, key, value).transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    """Two linear maps around a GELU."""

    def __init__(self, width: int, hidden: int, *, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.c_fc = nn.Linear(width, hidden)
        self.c_proj = nn.Linear(hidden, width)

    def forward(self, x: Tensor, keeps_gelu: bool = False) -> Tensor:
        """[B, L, W] to [B, L, W]; `keeps_gelu` for the backward pass instead of computing it again there."""
        hidden: Tensor = self.c_fc(x)
        approximate = "none" if self.activation == "exact" else "tanh"
        if self.activation == "quick":
            hidden = hidden * torch.sigmoid(1.702 * hidden)
        elif keeps_gelu:
            hidden = F.gelu(hidden, approximate=approximate)
        else:
            return cast(Tensor, _GeluLinear.apply(hidden, self.c_proj.weight, self.c_proj.bias, approximate))
        out: Tensor = self.c_proj(hidden)
        return out


class LayerScale(nn.Module):
    """A learned factor for each channel."""

    def __init__(self, width: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), init))

    def forward(self, x: Tensor) -> Tensor:
        """`x` with every channel scaled."""
        return x * self.gamma


class Norm(nn.LayerNorm):
    """A layer's norm in the type of what is normed, whatever type the weights are in: shards come in a lower one."""

    def forward(self, x: Tensor) -> Tensor:
        """`x` with every token's values shifted, scaled and weighted."""
        return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class Block(nn.Module):
    """x + g1 * attention(norm(x)), then x + g2 * mlp(norm(x))."""

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float,
        *,
        layer_scale: float | None,
        norm_eps: float,
        activation: Activation,
    ) -> None:
        super().__init__()
        self.ln_1 = Norm(width, norm_eps)
        self.attn = Attention(width, heads)
        self.ls_1 = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)
        self.ln_2 = Norm(width, norm_eps)
        self.mlp = Mlp(width, int(width * mlp_ratio), activation=activation)
        self.ls_2 = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)

    def forward(
        self, x: Tensor, rows: slice | None = None, mask: Tensor | None = None, keeps_gelu: bool = False
    ) -> Tensor:
        """The tokens `rows` (all if None) after this block, [B, L', W]; `mask` as in `Attention`.

        With `keeps_gelu` a block that is run again for the backward pass can stop before its last product.
        """
        normed = self.ln_1(x)
        x = x if rows is None else x[:, rows]
        x = x + self.ls_1(self.attn(normed, rows, mask))
        out: Tensor = x + self.ls_2(self.mlp(self.ln_2(x), keeps_gelu))
        return out


class AttentionPool(nn.Module):
    """One vector of all tokens: a learned query's attention to them, then an MLP (SigLIP's head)."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, *, norm_eps: float, activation: Activation) -> None:
        super().__init__()
        self.latent = nn.Parameter(width**-0.5 * torch.randn(1, width))
        self.attn = Attention(width, heads)
        self.norm = nn.LayerNorm(width, norm_eps)
        self.mlp = Mlp(width, int(width * mlp_ratio), activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, W] to [B, W]."""
        pooled = self.attn.from_query(x, self.latent)[:, 0]
        out: Tensor = pooled + self.mlp(self.norm(pooled))
        return out


class Transformer(nn.Module):
    """A stack of blocks that computes only the outputs that are asked for."""

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        mlp_ratio: float,
        *,
        layer_scale: float | None,
        norm_eps: float,
        activation: Activation,
    ) -> None:
        super().__init__()
        self.recompute_every = 0
        self.resblocks = nn.ModuleList(
            Block(width, heads, mlp_ratio, layer_scale=layer_scale, norm_eps=norm_eps, activation=activation)
            for _ in range(layers)
        )

    def blocks(self) -> list[Block]:
        """The blocks, first to last."""
        return [block for block in self.resblocks if isinstance(block, Block)]

    def forward(self, x: Tensor, rows: slice, mask: Tensor | None = None) -> Tensor:
        """The tokens `rows` after all blocks, [B, L', W]; `mask` as in `Attention`.

        The towers read one or two special tokens only, so the last block computes queries and its MLP for those alone:
        the same numbers for a fraction of a layer's work. Every `recompute_every`-th block, from the first, keeps its
        input alone for the backward pass, and computes the rest again then.
        """
        last = len(self.resblocks) - 1
        for index, block in enumerate(self.resblocks):
            wanted = rows if index == last else None
            if self.recompute_every and index % self.recompute_every == 0 and torch.is_grad_enabled():
                # Blocks draw no random numbers whose generators would have to be put back.
                x = checkpoint(block, x, wanted, mask, True, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x, wanted, mask)
        return x
