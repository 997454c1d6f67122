"""The pre-norm transformer both towers share, with the parameter names of the released checkpoints.

Shapes: B batch, L tokens, W width, H heads.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Activation = Literal["exact", "tanh", "quick"]
"""GELU, its tanh approximation, or x * sigmoid(1.702 x)."""


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention of every query to every key, or to those where `mask` [Lq, Lk] is true, [B, H, Lq, W/H].

    On a CPU two matrix products and a softmax beat the fused kernel at the lengths of these towers (8 ms against 80,
    forward and backward, for 128 x 38 tokens, 4 heads of 32, bf16); elsewhere the fused kernel keeps no L x L matrix.
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, mask)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    out: Tensor = scores.softmax(-1) @ value
    return out


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
            query, key, value = self._split(F.linear(x, self.in_proj_weight, self.in_proj_bias), 3)
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

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, W] to [B, L, W]."""
        hidden = self.c_fc(x)
        if self.activation == "quick":
            hidden = hidden * torch.sigmoid(1.702 * hidden)
        else:
            hidden = F.gelu(hidden, approximate="none" if self.activation == "exact" else "tanh")
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
        self.ln_1 = nn.LayerNorm(width, norm_eps)
        self.attn = Attention(width, heads)
        self.ls_1 = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)
        self.ln_2 = nn.LayerNorm(width, norm_eps)
        self.mlp = Mlp(width, int(width * mlp_ratio), activation=activation)
        self.ls_2 = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)

    def forward(self, x: Tensor, rows: slice | None = None, mask: Tensor | None = None) -> Tensor:
        """The tokens `rows` (all if None) after this block, [B, L', W]; `mask` as in `Attention`."""
        normed = self.ln_1(x)
        x = x if rows is None else x[:, rows]
        x = x + self.ls_1(self.attn(normed, rows, mask))
        out: Tensor = x + self.ls_2(self.mlp(self.ln_2(x)))
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
                x = checkpoint(block, x, wanted, mask, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x, wanted, mask)
        return x
