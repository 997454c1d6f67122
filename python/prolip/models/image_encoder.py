"""The image tower.

B batch, P patches, K kept patches, W width, D embedding. With native aspect P is that of the longest image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prolip.gaussian import Gaussian
from prolip.images.tensors import Patches
from prolip.models.config import VisionConfig
from prolip.models.position_tables import grid_positions
from prolip.models.transformer import Activation, AttentionMask, AttentionPool, Transformer, hide_token


class ImageEncoder(nn.Module):
    """A vision transformer: mean from [CLS] or an attention pool, log variance from [UNC]."""

    def __init__(self, config: VisionConfig, embed_dim: int, *, quick_gelu: bool) -> None:
        super().__init__()
        width = config.width
        self.patch = config.patch_size
        self.grid = config.grid
        self.is_native = config.image_seq_len is not None
        self.position_mode = config.pos_embed_interp_mode
        has_cls = config.pool_type == "tok"
        self.num_specials = int(has_cls) + int(config.embed_unc)
        self.hides_unc = config.embed_unc and not config.unc_seen
        # The released models were trained with the last norm applied twice to [CLS].
        self.norms_cls_twice = has_cls and config.embed_unc and config.final_norm == "twice"
        activation: Activation = "quick" if quick_gelu else config.gelu
        scale = width**-0.5
        self.class_embedding = nn.Parameter(scale * torch.randn(width)) if has_cls else None
        self.unc_embedding = nn.Parameter(scale * torch.randn(width)) if config.embed_unc else None
        self.positional_embedding = nn.Parameter(scale * torch.randn(self.num_specials + config.num_patches, width))
        self.proj = nn.Parameter(scale * torch.randn(width, embed_dim))
        # A convolution in the checkpoint, computed as a matrix product, so that dropped patches cost nothing.
        self.conv1 = nn.Conv2d(3, width, self.patch, self.patch, bias=False)
        self.ln_pre = nn.Identity() if config.no_ln_pre else nn.LayerNorm(width, config.norm_eps)
        self.transformer = Transformer(config, activation)
        self.ln_post = nn.LayerNorm(width, config.norm_eps)
        self.attn_pool = None if has_cls else AttentionPool(config, activation)
        self.uncertainty_proj = nn.Linear(width, embed_dim) if config.embed_unc else None
        if self.uncertainty_proj is not None:
            nn.init.normal_(self.uncertainty_proj.weight, std=scale)
            nn.init.constant_(self.uncertainty_proj.bias, config.init_unc_bias)

    def forward(self, images: Tensor | Patches, kept_patches: Tensor | None = None) -> Gaussian:
        """Encode images [B, 3, height, width] or patches; returns Gaussians [B, D] whose means are not normalised.

        Patches, and all images of a native model, may have any grid. `kept_patches` are sorted indices, [K] for the
        whole batch or [B, K] per image. For patches they are [M, K], of the first M images, and end with -1 where an
        image keeps fewer. Each kept patch has its own position embedding.
        """
        tokens, valid = self._embed(images, kept_patches)
        rows = slice(0, None if self.attn_pool is not None else self.num_specials)
        x = self.transformer(self.ln_pre(tokens), rows, self._mask(tokens, valid))
        # At least in float32, whatever the blocks ran in, because the loss compares the heads' outputs.
        with torch.autocast(x.device.type, enabled=False):
            x = self.ln_post(x.to(self.proj.dtype))
            if self.attn_pool is not None:
                seen = None if valid is None else valid[:, None, None]
                pooled = self.attn_pool(x[:, self.num_specials :], seen)
            else:
                pooled = self.ln_post(x[:, 0]) if self.norms_cls_twice else x[:, 0]
            mean = pooled @ self.proj
            if self.uncertainty_proj is None:
                return Gaussian.point(mean)
            return Gaussian(mean, self.uncertainty_proj(x[:, self.num_specials - 1]))

    def _embed(self, images: Tensor | Patches, kept_patches: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """[CLS], [UNC] and patches with their positions, [B, L, W], and which patches are real (None: all)."""
        valid, table = None, self.positional_embedding[self.num_specials :]
        if isinstance(images, Tensor) and not self.is_native:
            patches = self._cut(images)
            if kept_patches is not None:
                table = table[kept_patches]
                patches = patches.take_along_dim(kept_patches.expand(patches.shape[0], -1)[..., None], 1)
            tokens = F.linear(patches, self.conv1.weight.flatten(1)) + table
        else:
            cut = Patches.of(images, self.patch) if isinstance(images, Tensor) else images
            if kept_patches is not None:
                cut = cut.kept(kept_patches if kept_patches.ndim > 1 else kept_patches.expand(len(cut.grids), -1))
            valid = cut.valid
            # Values of padding that are not finite would reach the gradients.
            pixels = cut.patches.masked_fill(~valid[..., None], 0)
            positions = grid_positions(table, self.grid, cut.coords, cut.grids[:, None], self.position_mode)
            tokens = F.linear(pixels, self.conv1.weight.permute(0, 2, 3, 1).flatten(1)) + positions
        special: list[Tensor] = [vector for vector in (self.class_embedding, self.unc_embedding) if vector is not None]
        if special:
            specials = torch.stack(special) + self.positional_embedding[: self.num_specials]
            tokens = torch.cat([specials.expand(tokens.shape[0], -1, -1), tokens], 1)
        return tokens, valid

    def _cut(self, images: Tensor) -> Tensor:
        """From images [B, 3, height, width] to patches [B, P, 3 * patch * patch], row-major."""
        batch, size = images.shape[0], self.patch
        rows, columns = images.shape[-2] // size, images.shape[-1] // size
        if (rows, columns) != self.grid:
            raise ValueError(
                f"images of {tuple(images.shape[-2:])} pixels give a grid of {(rows, columns)} patches, "
                f"the model has {self.grid}"
            )
        cut = images[..., : rows * size, : columns * size].reshape(batch, 3, rows, size, columns, size)
        return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, 3 * size * size)

    def _mask(self, tokens: Tensor, valid: Tensor | None) -> AttentionMask | None:
        """No padding, and [UNC] only if it may be seen."""
        seen = None if valid is None else F.pad(valid, (self.num_specials, 0), value=True)[:, None, None]
        if not self.hides_unc:
            return seen
        length = tokens.shape[1]
        full = torch.ones(length, length, dtype=torch.bool, device=tokens.device)
        others = hide_token(full, self.num_specials - 1)
        return others if seen is None else seen & others
