"""Bayesian prompt re-weighting (BPRW): weight a class's prompts by how well they fit the class's images.

A class is a mixture of its prompts' Gaussians, with the most probable weights under a Dirichlet prior, given images
that vote: those nearest to the mean prompt, or labelled ones (docs/specification.md, section 5).

C classes, K prompts per class, D dimensions, N images, V images that vote for a class, S observations per class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.errors import UserError, check
from prolip.gaussian import LOG_2PI, Gaussian, dot_products
from prolip.metrics.config import BprwConfig
from prolip.metrics.mixture_weights import fit_weights, prior_weights
from prolip.metrics.zero_shot import Classifier

_CLASSES_AT_ONCE = 256
_CPU_BLOCK, _DEVICE_BLOCK = 2**18, 2**26
"""Maximum prompt values per block; on a CPU a block fits into its cache."""
_ABSENT = -1


class PromptWeights(NamedTuple):
    """Weights, and the classifier made with them."""

    weights: Tensor
    """[C, K], each row at least 0 and summing to 1."""
    classifier: Tensor
    """[C, D], the weighted sum of the prompts' means; not of unit norm."""
    variances: Tensor
    """[C, D], sum of squared weight times variance."""
    rounds: Tensor
    """i64 [C], rounds until each class converged."""

    def as_classifier(self) -> Classifier:
        """The classifier in the form of `prolip.metrics.zero_shot`."""
        return Classifier(self.classifier, self.variances)

    def to(self, device: torch.device) -> PromptWeights:
        """On another device."""
        return PromptWeights(*(tensor.to(device) for tensor in self))


def reweight_prompts(
    prompts: Gaussian,
    images: Gaussian,
    config: BprwConfig,
    *,
    labels: Tensor | None = None,
    on_progress: Callable[[int], object] | None = None,
) -> PromptWeights:
    """Weight all prompts of all classes, on the device and in the dtype of `prompts`, but at least in float32.

    EM runs in float64, because the log-likelihoods of a class's prompts differ little.

    Args:
        prompts: [C, K, D], unit means.
        images: [N, D], unit means.
        labels: i64 [N], classes, negative if unknown: only labelled images vote. None for the nearest images.
        on_progress: called with the number of classes finished since the last call.

    Raises:
        UserError: too few images, a class without a labelled image, or zero variances.
        ValueError: there is no prompt, or not one label per image.
    """
    if prompts.mean.numel() == 0:
        raise ValueError("prompts: must not be empty")
    if labels is not None and len(labels) != len(images.mean):
        raise ValueError(f"labels: must be one per image, {len(images.mean)} (got {len(labels)})")
    prompts = prompts.at_least_float32()
    voters = (
        nearest_images(prompts, images, config.num_neighbors)
        if labels is None
        else labelled_images(labels.to(prompts.mean.device), len(prompts.mean), config.num_neighbors)
    )
    generator = torch.Generator().manual_seed(config.seed)
    shape = (voters.shape[1], config.num_draws, prompts.mean.shape[-1])

    def draw(classes: int) -> Tensor | None:
        if config.observations == "expected":
            return None
        # By class, in float32 on the CPU: the numbers depend neither on blocks nor on device and dtype.
        return torch.stack([torch.randn(shape, generator=generator) for _ in range(classes)])

    chunks = []
    for start in range(0, len(prompts.mean), _CLASSES_AT_ONCE):
        classes = slice(start, start + _CLASSES_AT_ONCE)
        chunk = Gaussian(prompts.mean[classes], prompts.log_var[classes])
        with torch.autocast(chunk.mean.device.type, enabled=False):
            chunks.append(reweight_from_voters(chunk, images, voters[classes], config, draw(len(chunk.mean))))
        if on_progress is not None:
            on_progress(len(chunk.mean))
    return PromptWeights(*(torch.cat(tensors) for tensors in zip(*chunks, strict=True)))


def reweight_from_voters(
    prompts: Gaussian, images: Gaussian, voters: Tensor, config: BprwConfig, noise: Tensor | None
) -> PromptWeights:
    """Weight the prompts, [C, K, D], of some classes by voting images.

    Args:
        voters: i64 [C, V], indices of `images`, [N, D]; -1 where a class has fewer.
        config: `num_draws` and `observations` must match `noise`.
        noise: standard normal draws, [C, V, J, D]; None for expected observations.
    """
    num_classes, num_prompts, dim = prompts.mean.shape
    block = _CPU_BLOCK if prompts.mean.device.type == "cpu" else _DEVICE_BLOCK
    step = max(1, block // (num_prompts * dim))
    blocks = [slice(first, first + step) for first in range(0, num_classes, step)]
    times = config.num_draws if noise is None else 1
    starts, likelihoods, counts = [], [], []
    for rows in blocks:
        some = Gaussian(prompts.mean[rows], prompts.log_var[rows])
        seen = gather_observations(some, images, voters[rows], None if noise is None else noise[rows])
        starts.append(prior_weights(some.log_var, config.prior))
        likelihoods.append(log_likelihoods(seen, some.mean, component_vars(some.var, config)))
        counts.append(seen.counts * times)
    fitted = fit_weights(
        torch.cat(likelihoods),
        torch.cat(starts),
        counts=torch.cat(counts),
        alpha=config.alpha,
        tolerance=config.tolerance,
        max_rounds=config.max_rounds,
    )
    weights = fitted.weights.to(prompts.mean.dtype)
    squares = weights.square()[:, None]
    return PromptWeights(
        weights=weights,
        classifier=torch.bmm(weights[:, None], prompts.mean).squeeze(1),
        variances=torch.cat([torch.bmm(squares[rows], prompts.log_var[rows].exp()) for rows in blocks]).squeeze(1),
        rounds=fitted.rounds,
    )


# ---------------------------------------------------------------------------------------------------------------------
# Which images vote
# ---------------------------------------------------------------------------------------------------------------------


def nearest_images(prompts: Gaussian, images: Gaussian, count: int, rows_at_once: int = 256) -> Tensor:
    """The `count` images nearest to each class's mean prompt by dot product, nearest first, i64 [C, count]."""
    if count > len(images.mean):
        raise UserError("num_neighbors", f"must be at most the number of images, {len(images.mean)}", count)
    directions = prompts.mean.mean(dim=1)
    pool = images.mean.to(directions)
    blocks = [dot_products(some, pool).topk(count, dim=1).indices for some in torch.split(directions, rows_at_once)]
    return torch.cat(blocks)


def labelled_images(labels: Tensor, num_classes: int, count: int) -> Tensor:
    """Indices of the first `count` images of each class, i64 [C, V]; -1 where a class has fewer than V.

    Args:
        labels: i64 [N]; negative if the class is unknown.

    Raises:
        UserError: a class has no image, or a label is not a class.
    """
    order = torch.argsort(labels, stable=True)
    order = order[labels[order] >= 0]
    sizes = torch.bincount(labels[order], minlength=num_classes)
    if len(sizes) > num_classes:
        raise UserError("labels", f"must be below {num_classes}, the number of classes", len(sizes) - 1)
    if bool((sizes == 0).any()):
        raise UserError("labels", "must have each class", f"none of class {int((sizes == 0).nonzero()[0])}")
    starts = sizes.cumsum(0) - sizes
    places = torch.arange(min(count, int(sizes.max())), device=labels.device)
    found = order[(starts[:, None] + places).clamp_max(len(order) - 1)]
    return torch.where(places < sizes[:, None], found, _ABSENT)


# ---------------------------------------------------------------------------------------------------------------------
# Likelihood of the observations under each prompt
# ---------------------------------------------------------------------------------------------------------------------


class Observations(NamedTuple):
    """Of each class: samples, or Gaussians."""

    mean: Tensor
    """[C, S, D], samples, or means of Gaussians, which the log-likelihood is averaged over."""
    var: Tensor | None
    """[C, S, D], of those Gaussians; None for samples."""
    counts: Tensor
    """[C, S], how many samples each counts as; 0 for padding."""


def gather_observations(prompts: Gaussian, images: Gaussian, voters: Tensor, noise: Tensor | None) -> Observations:
    """Samples of the voting images, mean + exp(log_var / 2) * noise; without noise, the images' Gaussians.

    Arguments as for `reweight_from_voters`; of `prompts` only dtype and device are used.
    """
    kind = prompts.mean
    present = (voters >= 0).to(kind)
    index = voters.clamp_min(0).to(images.mean.device)
    mean, log_var = images.mean[index].to(kind), images.log_var[index].to(kind)
    if noise is None:
        return Observations(mean, log_var.exp(), present)
    samples = torch.addcmul(mean[:, :, None], (0.5 * log_var).exp()[:, :, None], noise.to(kind))
    return Observations(samples.flatten(1, 2), None, present.repeat_interleave(noise.shape[2], dim=1))


def component_vars(var: Tensor, config: BprwConfig) -> Tensor:
    """Variances of the prompts, scaled and floored, [C, K, D]; a UserError at 0."""
    scaled = config.var_multiplier * var + config.var_floor
    if config.multiplier_form == "official":
        scaled = config.var_multiplier * scaled
    check(bool((scaled > 0).all()), "var_floor", "must be above 0 for prompts with a variance of 0", "0")
    return scaled


def log_likelihoods(seen: Observations, mean: Tensor, var: Tensor) -> Tensor:
    """ln N(observation; mean, var) of every observation under every prompt, [C, S, K], as two matrix products.

    For an observation with variances, the mean over its Gaussian: ln N(its mean) - sum(its var / var) / 2. Coordinates
    are relative to the class's mean prompt: differences of large squares lose digits in float32.
    """
    centre = mean.mean(dim=1, keepdim=True)
    offset, precision = mean - centre, var.reciprocal()
    points = seen.mean - centre
    scaled = offset * precision
    constant = (offset * scaled).sum(-1) + var.log().sum(-1) + var.shape[-1] * LOG_2PI
    found = points @ scaled.mT
    second = points.square_() if seen.var is None else points.square_().add_(seen.var)
    found.baddbmm_(second, precision.mT, beta=1.0, alpha=-0.5)
    return found.sub_(0.5 * constant[:, None])
