"""Bayesian prompt re-weighting: how much each of a class's prompts says about the class's images (SPEC §5).

A class is a mixture of its prompts' Gaussians. Its mixing weights are the most probable ones under a Dirichlet prior,
given images that are taken for the class's: those nearest to its mean prompt, or labelled ones. They are found for all
classes at once. C classes, K prompts a class, D dimensions, N images, V images that vote for a class, S observations
of a class (V, or V times the draws).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from prolip.eval.config import BprwConfig
from prolip.eval.em import fit_weights, prior_weights
from prolip.eval.zero_shot import Classifier
from prolip.files import whole_file
from prolip.gaussian import LOG_2PI, Gaussian

MAX_BYTES = 1 << 30
"""Default bound on the working memory of a chunk of classes."""
_CPU_BLOCK, _DEVICE_BLOCK = 2**18, 2**26
"""Numbers, of the prompts of some classes, that are worked on at a time."""
_ABSENT = -1
_TENSORS = ("weights", "classifier", "variances", "rounds")


@dataclass(frozen=True, kw_only=True)
class PromptWeights:
    """Re-weighted prompts, and the classifier that they make."""

    weights: Tensor
    """[C, K], each row at least 0 and summing to 1."""
    classifier: Tensor
    """[C, D], the weighted sum of the prompts' means; not of unit norm."""
    variances: Tensor
    """[C, D], sum of squared weight times variance: the variance of the weighted sum."""
    rounds: Tensor
    """i64 [C], rounds until each class had converged."""

    def as_classifier(self) -> Classifier:
        """What `prolip.eval.zero_shot` classifies with."""
        return Classifier(self.classifier, self.variances)

    def save(self, path: Path, notes: Mapping[str, object] | None = None) -> None:
        """Writes a safetensors file; `notes` (settings, class names, templates) go into its header as JSON."""
        tensors = {name: getattr(self, name).detach().cpu().contiguous() for name in _TENSORS}
        header = {name: json.dumps(note, ensure_ascii=False) for name, note in (notes or {}).items()}
        with whole_file(path) as temporary:
            save_file(tensors, temporary, header)

    @classmethod
    def load(cls, path: Path) -> PromptWeights:
        """The weights in a file that `save` wrote, on the CPU.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file holds no prompt weights.
        """
        try:
            with safe_open(path, framework="pt") as file:
                if set(file.keys()) != set(_TENSORS):
                    raise ValueError(f"{path} holds no prompt weights, but {', '.join(sorted(file.keys()))}")
                return cls(**{name: file.get_tensor(name) for name in _TENSORS})
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file: {error}") from error


def reweight_prompts(
    prompts: Gaussian,
    images: Gaussian,
    config: BprwConfig,
    *,
    labels: Tensor | None = None,
    max_bytes: int = MAX_BYTES,
    on_progress: Callable[[int], object] | None = None,
) -> PromptWeights:
    """Weights of all prompts of all classes, computed on the device and in the type of `prompts` (EM in float64).

    Args:
        prompts: [C, K, D], unit means.
        images: [N, D], unit means.
        config: the rule.
        labels: i64 [N], the class of each image, where they are known: only labelled images then vote. Negative for an
            image without a label. Without labels the images nearest to a class vote for it, without asking whether
            they belong to it.
        max_bytes: bound on the working memory beyond the arguments and the result; classes are taken in chunks that
            fit, at least one at a time. It changes no result.
        on_progress: called with the number of classes that were finished since the last call.

    Raises:
        ValueError: too few images, a class without a labelled one, or variances of zero where the setting needs them.
    """
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
        # Class by class, so that the stream does not depend on the chunks; float32 on the CPU, so that it depends
        # neither on the device nor on the type.
        return torch.stack([torch.randn(shape, generator=generator) for _ in range(classes)])

    parts = []
    for classes in class_chunks(prompts, voters.shape[1], config, max_bytes):
        chunk = Gaussian(prompts.mean[classes], prompts.log_var[classes])
        parts.append(reweight_from_voters(chunk, images, voters[classes], config, draw(len(chunk.mean))))
        if on_progress is not None:
            on_progress(len(chunk.mean))
    return PromptWeights(**{name: torch.cat([getattr(part, name) for part in parts]) for name in _TENSORS})


def reweight_from_voters(
    prompts: Gaussian, images: Gaussian, voters: Tensor, config: BprwConfig, noise: Tensor | None
) -> PromptWeights:
    """Weights of a chunk of classes whose voting images and draws are known; all of it is in memory at once.

    Args:
        prompts: [C, K, D].
        images: [N, D].
        voters: i64 [C, V], indices of images, -1 where a class has fewer.
        config: the rule; its `num_draws` and `observations` are those of `noise`.
        noise: standard normal draws, [C, V, J, D]; None for expected observations.

    Raises:
        ValueError: variances are zero where the setting needs them.
    """
    times = config.num_draws if noise is None else 1

    def observe(rows: slice) -> Observations:
        seen = gather_observations(
            _classes(prompts, rows), images, voters[rows], None if noise is None else noise[rows]
        )
        return seen._replace(counts=seen.counts * times)

    return _reweight(prompts, observe, config)


def reweight_observations(prompts: Gaussian, seen: Observations, config: BprwConfig) -> PromptWeights:
    """Weights of a chunk of classes from what was seen of each.

    Raises:
        ValueError: variances are zero where the setting needs them.
    """

    def observe(rows: slice) -> Observations:
        return Observations(seen.mean[rows], None if seen.var is None else seen.var[rows], seen.counts[rows])

    return _reweight(prompts, observe, config)


def _classes(prompts: Gaussian, rows: slice) -> Gaussian:
    return Gaussian(prompts.mean[rows], prompts.log_var[rows])


def _reweight(prompts: Gaussian, observe: Callable[[slice], Observations], config: BprwConfig) -> PromptWeights:
    """Weights of all classes in one fit; what has D numbers is made for a few classes at a time.

    Those fit a CPU's cache, and their memory is used again for the next ones.
    """
    num_classes, num_prompts, dim = prompts.mean.shape
    block = _CPU_BLOCK if prompts.mean.device.type == "cpu" else _DEVICE_BLOCK
    step = max(1, block // (num_prompts * dim))
    blocks = [slice(first, first + step) for first in range(0, num_classes, step)]
    starts, likelihoods, counts = [], [], []
    for rows in blocks:
        some, seen = _classes(prompts, rows), observe(rows)
        starts.append(prior_weights(some.log_var, config.prior))
        likelihoods.append(log_likelihoods(seen, some.mean, component_vars(some.var, config)))
        counts.append(seen.counts)
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
        variances=torch.cat([torch.bmm(squares[rows], _classes(prompts, rows).var) for rows in blocks]).squeeze(1),
        rounds=fitted.rounds,
    )


# ---------------------------------------------------------------------------------------------------------------------
# Which images vote
# ---------------------------------------------------------------------------------------------------------------------


def nearest_images(prompts: Gaussian, images: Gaussian, count: int, rows_at_once: int = 256) -> Tensor:
    """The `count` images with the largest dot product with each class's mean prompt, nearest first, i64 [C, count].

    Raises:
        ValueError: there are fewer images.
    """
    if count > len(images.mean):
        raise ValueError(f"bprw.num_neighbors is {count}: there are only {len(images.mean)} images")
    directions = prompts.mean.mean(dim=1)
    pool = images.mean.to(directions)
    starts = range(0, len(directions), rows_at_once)
    blocks = [(directions[s : s + rows_at_once] @ pool.T).topk(count, dim=1).indices for s in starts]
    return torch.cat(blocks)


def labelled_images(labels: Tensor, num_classes: int, count: int) -> Tensor:
    """The first `count` images of each class, i64 [C, V]; V is the most that a class has, -1 fills the others.

    Args:
        labels: i64 [N]; negative where the class is not known.
        num_classes: C.
        count: at most so many for a class.

    Raises:
        ValueError: a class has no image.
    """
    order = torch.argsort(labels, stable=True)
    order = order[labels[order] >= 0]
    sizes = torch.bincount(labels[order], minlength=num_classes)
    if len(sizes) > num_classes:
        raise ValueError(f"label {len(sizes) - 1} is beyond the {num_classes} classes")
    if bool((sizes == 0).any()):
        raise ValueError(f"class {int((sizes == 0).nonzero()[0])} has no labelled image")
    starts = sizes.cumsum(0) - sizes
    places = torch.arange(min(count, int(sizes.max())), device=labels.device)
    found = order[(starts[:, None] + places).clamp_max(len(order) - 1)]
    return torch.where(places < sizes[:, None], found, _ABSENT)


def class_chunks(prompts: Gaussian, num_voters: int, config: BprwConfig, max_bytes: int) -> Iterator[slice]:
    """Runs of classes whose working memory stays within `max_bytes`; one class where even that does not fit."""
    num_classes, num_prompts, dim = prompts.mean.shape
    observations = num_voters * (config.num_draws if config.observations == "draws" else 1)
    # Observations: float32 noise, samples, centred samples, squares; prompts: variances, precisions, scaled means and
    # one temporary; likelihoods: in the inputs' type, and three times in float64.
    numbers = 4 * observations * dim + 5 * num_prompts * dim + observations * num_prompts
    per_class = numbers * prompts.mean.element_size() + 3 * 8 * observations * num_prompts
    step = max(1, max_bytes // per_class)
    for start in range(0, num_classes, step):
        yield slice(start, min(start + step, num_classes))


# ---------------------------------------------------------------------------------------------------------------------
# How likely the prompts make what is seen
# ---------------------------------------------------------------------------------------------------------------------


class Observations(NamedTuple):
    """What is seen of each class."""

    mean: Tensor
    """[C, S, D]: samples, or the means of Gaussians over which the log-likelihood is averaged."""
    var: Tensor | None
    """[C, S, D], the variances of those Gaussians; None for samples."""
    counts: Tensor
    """[C, S], how many samples each stands for; 0 for one that is not there."""


def gather_observations(prompts: Gaussian, images: Gaussian, voters: Tensor, noise: Tensor | None) -> Observations:
    """The voting images' samples mean + exp(log_var / 2) * noise, image after image; without noise their Gaussians."""
    kind = prompts.mean
    present = (voters >= 0).to(kind)
    index = voters.clamp_min(0).to(images.mean.device)
    mean, log_var = images.mean[index].to(kind), images.log_var[index].to(kind)
    if noise is None:
        return Observations(mean, log_var.exp(), present)
    samples = torch.addcmul(mean[:, :, None], (0.5 * log_var).exp()[:, :, None], noise.to(kind))
    return Observations(samples.flatten(1, 2), None, present.repeat_interleave(noise.shape[2], dim=1))


def component_vars(var: Tensor, config: BprwConfig) -> Tensor:
    """Variances of the mixture's components from those of the prompts, [C, K, D]; above 0.

    Raises:
        ValueError: one is zero.
    """
    scaled = config.var_multiplier * var + config.var_floor
    if config.multiplier_form == "official":
        scaled = config.var_multiplier * scaled
    if not bool((scaled > 0).all()):
        raise ValueError("bprw.var_floor is 0 and a prompt has a variance of zero: set a floor above 0")
    return scaled


def log_likelihoods(seen: Observations, mean: Tensor, var: Tensor) -> Tensor:
    """ln N(observation; mean, var) of every observation under every prompt, [C, S, K], as two matrix products.

    Observations with variances get the expectation over their Gaussian: ln N(their mean) - 1/2 sum(their var / var).
    Both sides are measured from the class's mean prompt, which keeps the products small: the prompts of a class lie
    close together, and in float32 the difference of large squares would cost the digits that tell them apart.

    Args:
        seen: of each class.
        mean: [C, K, D].
        var: [C, K, D], above 0.
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
