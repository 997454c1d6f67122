"""The text tower: tokens, [UNC] and [CLS] to a Gaussian.

Shapes: B batch, L tokens, W width, D embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prolip.gaussian import Gaussian
from prolip.models.architectures import TextConfig
from prolip.models.transformer import Transformer


class TextEncoder(nn.Module):
    """A bidirectional transformer over tokens followed by [UNC] and [CLS]."""

    def __init__(self, config: TextConfig, embed_dim: int, *, quick_gelu: bool) -> None:
        super().__init__()
        width = config.width
        self.context_length = config.context_length
        self.log_var_source = config.log_var_source
        self.num_specials = 2 if config.embed_unc else 1
        self.cls_emb = nn.Parameter(0.01 * torch.randn(width))
        self.unc_emb = nn.Parameter(0.01 * torch.randn(width)) if config.embed_unc else None
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(config.context_length + self.num_specials, width))
        # Without bias the checkpoint holds a bare [W, D] matrix instead of a linear layer.
        bare = None if config.proj_bias else nn.Parameter(width**-0.5 * torch.randn(width, embed_dim))
        if bare is not None:
            self.text_projection: nn.Parameter | nn.Linear = bare
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.transformer = Transformer(
            width,
            config.layers,
            config.heads,
            config.mlp_ratio,
            layer_scale=config.ls_init_value,
            norm_eps=config.norm_eps,
            quick_gelu=quick_gelu,
        )
        self.ln_final = nn.LayerNorm(width, config.norm_eps)
        if bare is None:
            self.text_projection = nn.Linear(width, embed_dim)
        self.text_uncertainty_projection = nn.Linear(width, embed_dim) if config.embed_unc else None
        self._initialise(config)

    def _initialise(self, config: TextConfig) -> None:
        width = config.width
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        residual_std = width**-0.5 * (2 * config.layers) ** -0.5
        for block in self.transformer.blocks():
            nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
            nn.init.normal_(block.attn.out_proj.weight, std=residual_std)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=residual_std)
        if isinstance(self.text_projection, nn.Linear):
            nn.init.normal_(self.text_projection.weight, std=width**-0.5)
            nn.init.zeros_(self.text_projection.bias)
        if self.text_uncertainty_projection is not None:
            nn.init.normal_(self.text_uncertainty_projection.weight, std=width**-0.5)
            nn.init.constant_(self.text_uncertainty_projection.bias, config.init_unc_bias)

    def _tokens(self, token_ids: Tensor) -> Tensor:
        """Token, [UNC] and [CLS] vectors with their position rows, [B, L + specials, W]."""
        batch, length = token_ids.shape
        if length > self.context_length:
            raise ValueError(f"{length} tokens do not fit the context of {self.context_length}")
        specials = self.cls_emb[None] if self.unc_emb is None else torch.stack([self.unc_emb, self.cls_emb])
        x = torch.cat([self.token_embedding(token_ids), specials.expand(batch, -1, -1)], 1)
        return x + self.positional_embedding[: length + self.num_specials]

    def forward(self, token_ids: Tensor) -> Gaussian:
        """Gaussians with raw (not normalised) means, [B, D].

        `token_ids` is [B, L], padded to the full context: padding is attended to like any token, and shorter inputs put
        [UNC] and [CLS] on position rows that were trained as ordinary ones.
        """
        from_unc = self.text_uncertainty_projection is not None and self.log_var_source == "unc"
        x = self.transformer(self._tokens(token_ids), slice(-2, None) if from_unc else slice(-1, None))
        # The heads decide what the loss sees: single precision at least, whatever the blocks ran in.
        with torch.autocast(x.device.type, enabled=False):
            x = self.ln_final(x.to(self.ln_final.weight.dtype))
            projection = self.text_projection
            mean: Tensor = projection(x[:, -1]) if isinstance(projection, nn.Linear) else x[:, -1] @ projection
            if self.text_uncertainty_projection is None:
                return Gaussian.point(mean)
            # "mean" repeats the released code: a linear function of the projected mean, not of the [UNC] output.
            return Gaussian(mean, self.text_uncertainty_projection(x[:, 0] if from_unc else mean))
