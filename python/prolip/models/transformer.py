"""The pre-norm transformer of both towers, with the parameter names of the released checkpoints.

B batch, L tokens, W width, H heads.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from prolip.models.config import TextConfig, VisionConfig

TowerConfig = VisionConfig | TextConfig
Activation = Literal["exact", "tanh", "quick"]
"""GELU, its tanh approximation, or x * sigmoid(1.702 x)."""
AttentionMask = Tensor
"""Which tokens each token attends to: bool [Lq, Lk], or per image [B, 1, Lq or 1, Lk]."""


def hide_token(mask: Tensor, token: int) -> Tensor:
    """`mask` [L, L] with `token` hidden from all others."""
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
        """[B, L, parts * W] into `parts` tensors [B, H, L, W/H]."""
        batch, length, _ = x.shape
        return x.view(batch, length, parts, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    def forward(self, x: Tensor, rows: slice | None = None, mask: AttentionMask | None = None) -> Tensor:
        """Of the tokens `rows`, [B, L', W], to those that `mask` allows; None for all."""
        if rows is None:
            packed = F.linear(x, self.in_proj_weight, self.in_proj_bias)
            return self._read(mask, *self._split(packed, 3))
        width = x.shape[-1]
        query = F.linear(x[:, rows], self.in_proj_weight[:width], self.in_proj_bias[:width])
        # A mask of one row is for all queries.
        return self._attend(query, x, mask if mask is None or mask.shape[-2] == 1 else mask[..., rows, :])

    def from_query(self, x: Tensor, query: Tensor, mask: AttentionMask | None = None) -> Tensor:
        """Of the vectors `query` [Lq, W] to the tokens `x` [B, L, W]; returns [B, Lq, W]."""
        width = x.shape[-1]
        probe = F.linear(query, self.in_proj_weight[:width], self.in_proj_bias[:width])
        return self._attend(probe.expand(x.shape[0], -1, -1), x, mask)

    def _attend(self, query: Tensor, x: Tensor, mask: AttentionMask | None) -> Tensor:
        width = x.shape[-1]
        key, value = self._split(F.linear(x, self.in_proj_weight[width:], self.in_proj_bias[width:]), 2)
        (split,) = self._split(query, 1)
        return self._read(mask, split, key, value)

    def _read(self, mask: AttentionMask | None, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if query.device.type == "cpu" and query.dtype != torch.float32:
            # In half precision torch's fused kernel for CPUs takes two to four times as long, with its backward.
            scores = query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)
            seen = (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1) @ value
        else:
            seen = F.scaled_dot_product_attention(query, key, value, mask)
        out: Tensor = self.out_proj(seen.transpose(1, 2).flatten(2))
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
        """Every channel."""
        return x * self.gamma


class Norm(nn.LayerNorm):
    """A layer norm in the dtype of its input. Weights gathered from shards may have a lower precision."""

    def forward(self, x: Tensor) -> Tensor:
        """Every token."""
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
    """Attention of a learned query, then an MLP (SigLIP's head)."""

    def __init__(self, config: TowerConfig, activation: Activation) -> None:
        super().__init__()
        width = config.width
        self.latent = nn.Parameter(width**-0.5 * torch.randn(1, width))
        self.attn = Attention(width, config.heads)
        self.norm = nn.LayerNorm(width, config.norm_eps)
        self.mlp = Mlp(width, int(width * config.mlp_ratio), activation=activation)

    def forward(self, x: Tensor, mask: AttentionMask | None = None) -> Tensor:
        """From [B, L, W] to [B, W]; `mask` says which tokens count (all if None)."""
        pooled = self.attn.from_query(x, self.latent, mask)[:, 0]
        out: Tensor = pooled + self.mlp(self.norm(pooled))
        return out


class Transformer(nn.Module):
    """Computes only the outputs it is asked for."""

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
                # Blocks draw no random numbers.
                x = checkpoint(block, x, wanted, mask, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x, wanted, mask)
        return x
