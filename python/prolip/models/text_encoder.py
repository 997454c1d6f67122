"""The text tower.

B batch, L tokens, W width, D embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prolip.gaussian import Gaussian
from prolip.models.config import TextConfig
from prolip.models.transformer import AttentionMask, Transformer, hide_token


class TextEncoder(nn.Module):
    """A transformer over tokens, [UNC] and [CLS], in this order; bidirectional in all released models.

    Without [CLS] the mean is computed from a token, as in CLIP and SigLIP. Under CLIP's causal mask [UNC] attends to
    all tokens and none to it, so means do not depend on it.
    """

    def __init__(self, config: TextConfig, embed_dim: int, *, quick_gelu: bool) -> None:
        super().__init__()
        width = config.width
        self.context_length = config.context_length
        self.log_var_source = config.log_var_source
        self.pool_type = "cls" if config.embed_cls else config.pool_type
        self.eos_id = config.eos_id
        self.num_specials = int(config.embed_cls) + int(config.embed_unc)
        self.cls_emb = nn.Parameter(0.01 * torch.randn(width)) if config.embed_cls else None
        self.unc_emb = nn.Parameter(0.01 * torch.randn(width)) if config.embed_unc else None
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(config.context_length + self.num_specials, width))
        # Without a bias, checkpoints hold a bare [W, D] matrix.
        bare = None if config.proj_bias else nn.Parameter(width**-0.5 * torch.randn(width, embed_dim))
        if bare is not None:
            self.text_projection: nn.Parameter | nn.Linear = bare
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.transformer = Transformer(config, "quick" if quick_gelu else config.gelu)
        self.ln_final = nn.LayerNorm(width, config.norm_eps)
        if bare is None:
            self.text_projection = nn.Linear(width, embed_dim)
        self.text_uncertainty_projection = nn.Linear(width, embed_dim) if config.embed_unc else None
        self.is_causal = not config.no_causal_mask
        self.hides_unc = config.embed_unc and not config.unc_seen
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
        """With their position embeddings, [B, L + specials, W]."""
        batch, length = token_ids.shape
        if length > self.context_length:
            raise ValueError(f"{length} tokens do not fit the context of {self.context_length}")
        x: Tensor = self.token_embedding(token_ids)
        specials: list[Tensor] = [vector for vector in (self.unc_emb, self.cls_emb) if vector is not None]
        if specials:
            x = torch.cat([x, torch.stack(specials).expand(batch, -1, -1)], 1)
        return x + self.positional_embedding[: length + self.num_specials]

    def forward(self, token_ids: Tensor) -> Gaussian:
        """Encode `token_ids` [B, L]; returns Gaussians [B, D] whose means are not normalised.

        Always pad to the full context: tokens attend to padding as to any token, and in a shorter input [UNC] and [CLS]
        get position embeddings that were trained for ordinary tokens.
        """
        from_unc = self.text_uncertainty_projection is not None and self.log_var_source == "unc"
        tokens = self._tokens(token_ids)
        # The first output needed; with pool_type "argmax" or "eos" that can be any token.
        first = -1 - int(from_unc) if self.pool_type == "cls" else -1 - self.num_specials
        rows = slice(first if self.pool_type in {"cls", "last"} else 0, None)
        x = self.transformer(tokens, rows, self._mask(tokens))
        # At least in float32, whatever the blocks ran in, because the loss compares the heads' outputs.
        with torch.autocast(x.device.type, enabled=False):
            x = self.ln_final(x.to(self.ln_final.weight.dtype))
            projection = self.text_projection
            pooled = self._pooled(x, token_ids)
            mean: Tensor = projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection
            if self.text_uncertainty_projection is None:
                return Gaussian.point(mean)
            # "mean" repeats the released code: log variances are a linear function of the projected mean, not of [UNC].
            return Gaussian(mean, self.text_uncertainty_projection(x[:, self._unc_row] if from_unc else mean))

    def _mask(self, tokens: Tensor) -> AttentionMask | None:
        """None after it if causal, and [UNC] only if it may be seen."""
        if not self.is_causal and not self.hides_unc:
            return None
        length = tokens.shape[1]
        allowed = torch.ones(length, length, dtype=torch.bool, device=tokens.device)
        if self.is_causal:
            allowed = allowed.tril()
        return hide_token(allowed, length + self._unc_row) if self.hides_unc else allowed

    @property
    def _unc_row(self) -> int:
        return -1 if self.cls_emb is None else -2

    def _pooled(self, x: Tensor, token_ids: Tensor) -> Tensor:
        """What the mean is computed from, [B, W]. `x` may lack its first tokens, never its last."""
        if self.pool_type == "cls":
            return x[:, -1]
        if self.pool_type == "last":
            return x[:, -1 - self.num_specials]
        place = (token_ids if self.pool_type == "argmax" else (token_ids == self.eos_id).int()).argmax(-1)
        return x[torch.arange(x.shape[0], device=x.device), place]
