"""A training step as the published code takes it, restated from docs/specification.md (sections 2, 3, 7, 8) for the
benchmark: torch's own modules, every block for every token, a pass for each of the four views, pairs in matrices.

Parameter names are the released ones, so that a state dict of ours fits. Shapes: B batch, M masked samples, L tokens,
W width, D embedding.
"""

import math
from collections import OrderedDict
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prolip.train.optim import decays

Pair = dict[str, Tensor]
"""A tower's "mean" and "std", which is what the released code calls the log variance."""


def kept_patches(num_patches, keep_ratio):
    """One draw for the whole batch, from the CPU's generator."""
    return torch.randperm(num_patches)[: int(num_patches * keep_ratio)].sort().values


class LayerNorm(nn.LayerNorm):
    """Gives back the type that it was given."""

    def forward(self, x):
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).to(x.dtype)


class Block(nn.Module):
    def __init__(self, width, heads, mlp_ratio, eps):
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.ln_1 = LayerNorm(width, eps)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = LayerNorm(width, eps)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=nn.Linear(width, hidden), gelu=nn.GELU(), c_proj=nn.Linear(hidden, width))
        )

    def forward(self, x):
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        out = x + self.mlp(self.ln_2(x))
        return out


class Transformer(nn.Module):
    def __init__(self, width, heads, layers, mlp_ratio, eps):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, mlp_ratio, eps) for _ in range(layers))

    def forward(self, x):
        for block in self.resblocks:
            x = block(x)
        return x


class ImageTower(nn.Module):
    def __init__(self, config, dim):
        super().__init__()
        width = config.width
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.unc_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(2 + config.num_patches, width))
        self.proj = nn.Parameter(torch.empty(width, dim))
        self.conv1 = nn.Conv2d(3, width, config.patch_size, config.patch_size, bias=False)
        self.ln_pre = LayerNorm(width, config.norm_eps)
        self.transformer = Transformer(width, config.heads, config.layers, config.mlp_ratio, config.norm_eps)
        self.ln_post = LayerNorm(width, config.norm_eps)
        self.uncertainty_proj = nn.Linear(width, dim)

    def forward(self, images, keep_ratio=None):
        x = self.conv1(images).flatten(2).permute(0, 2, 1)
        positions = self.positional_embedding.to(x.dtype)
        x = x + positions[2:]
        if keep_ratio:
            x = x[:, kept_patches(x.shape[1], keep_ratio).to(x.device)]
        specials = torch.stack([self.class_embedding, self.unc_embedding]).to(x.dtype) + positions[:2]
        x = self.ln_pre(torch.cat([specials.expand(len(x), -1, -1), x], 1))
        x = self.ln_post(self.transformer(x))
        return {"mean": self.ln_post(x[:, 0]) @ self.proj, "std": self.uncertainty_proj(x[:, 1])}


class TextTower(nn.Module):
    def __init__(self, config, dim):
        super().__init__()
        width = config.width
        self.cls_emb = nn.Parameter(torch.empty(width))
        self.unc_emb = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length + 2, width))
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.transformer = Transformer(width, config.heads, config.layers, config.mlp_ratio, config.norm_eps)
        self.ln_final = LayerNorm(width, config.norm_eps)
        self.text_projection = nn.Linear(width, dim)
        self.text_uncertainty_projection = nn.Linear(width, dim)

    def forward(self, token_ids):
        x = self.token_embedding(token_ids)
        specials = torch.stack([self.unc_emb, self.cls_emb]).expand(len(x), -1, -1)
        x = torch.cat([x, specials], 1) + self.positional_embedding
        x = self.ln_final(self.transformer(x))
        mean = self.text_projection(x[:, -1])
        return {"mean": mean, "std": self.text_uncertainty_projection(mean)}


class PublishedModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.visual = ImageTower(config.vision, config.embed_dim)
        self.text = TextTower(config.text, config.embed_dim)
        self.logit_scale = nn.Parameter(torch.tensor(config.init_logit_scale))
        self.logit_bias = nn.Parameter(torch.tensor(config.init_logit_bias))

    def forward(self, images, token_ids, keep_ratio=None):
        image, text = self.visual(images, keep_ratio), self.text(token_ids)
        for pair in (image, text):
            pair["mean"] = F.normalize(pair["mean"], dim=-1)
        return image, text


# ---------------------------------------------------------------------------------------------------------------------
# Losses


def contrast(image, text, scale, bias):
    """Variances of every pair in every dimension, then labels in a matrix of their own."""
    spread = (image["std"].exp()[:, None] + text["std"].exp()[None]).sum(-1)
    logits = scale * (image["mean"] @ text["mean"].T - spread / 2) + bias
    labels = 2 * torch.eye(len(logits), device=logits.device, dtype=logits.dtype) - 1
    return -F.logsigmoid(labels * logits).sum() / len(logits)


def _one_sided(first, second, eps):
    """ln of the integral of the first, squared, times the second, as completed squares whose terms are scaled by
    exp(eps)."""
    (mean, log_var), (other, other_log_var) = ((pair["mean"], pair["std"]) for pair in (first, second))
    inverse = torch.exp(-log_var + eps)
    other_inverse = torch.exp(-other_log_var + eps)
    a = inverse + 0.5 * other_inverse
    b = 2 * mean * inverse + other * other_inverse
    c = mean.square() * inverse + 0.5 * other.square() * other_inverse
    return -2 * log_var - other_log_var - 0.5 * torch.log(a) + b.square() / (4 * a) - c


def lies_in(specific, general, config):
    score = _one_sided(specific, general, config.inclusion_eps) - _one_sided(general, specific, config.inclusion_eps)
    loss = -F.logsigmoid(config.inclusion_scale * score).mean()
    if abs(loss) > 1e5:
        return torch.zeros_like(loss)
    return loss


def bottleneck(pair):
    half = 0.5 * pair["std"]
    loss = 0.5 * (pair["mean"].square() + half.exp() - 1 - half).mean()
    if loss > 1e4:
        return torch.zeros_like(loss)
    return loss


def total_loss(whole, masked, scale, bias, config):
    image, text = whole
    rows = len(masked[0]["mean"])
    loss = config.ppcl_weight * contrast(image, text, scale, bias)
    for tower, view in zip(whole, masked, strict=True):
        first = {name: value[:rows] for name, value in tower.items()}
        loss = loss + config.masked_inclusion_weight * lies_in(first, view, config)
    loss = loss + config.inclusion_weight * lies_in(image, text, config)
    return loss + config.vib_weight * (bottleneck(image) + bottleneck(text))


# ---------------------------------------------------------------------------------------------------------------------
# The step


def mask_texts(token_ids, mask):
    """One draw for each token that is no padding (id 1), in order, from the CPU's generator."""
    masked = token_ids.clone()
    present = masked != 1
    draws = torch.rand(int(present.sum())).to(token_ids.device)
    masked[present] = torch.where(draws < mask.text_mask_prob, mask.mask_id, masked[present])
    return masked


def optimizer_of(model, config):
    named = list(model.named_parameters())
    return torch.optim.AdamW(
        [
            {"params": [p for name, p in named if not decays(name, p.ndim)], "weight_decay": 0.0},
            {"params": [p for name, p in named if decays(name, p.ndim)], "weight_decay": config.weight_decay},
        ],
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
    )


class PublishedStep:
    """A model and its optimiser."""

    def __init__(self, model, loss, optim, mask, precision=nullcontext):
        self.model, self.loss, self.mask, self.precision = model, loss, mask, precision
        self.optimizer = optimizer_of(model, optim)

    def __call__(self, images, token_ids, lr):
        """The loss before the step is taken."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        rows = int(len(images) * self.mask.masked_fraction)
        masked_ids = mask_texts(token_ids[:rows], self.mask)
        self.optimizer.zero_grad()
        with self.precision():
            whole = self.model(images, token_ids)
            masked = self.model(images[:rows], masked_ids, self.mask.text_mask_prob)
            loss = total_loss(whole, masked, self.model.logit_scale.exp(), self.model.logit_bias, self.loss)
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(100))
        return loss.detach()
