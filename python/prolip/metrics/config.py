"""Settings of the measures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro

from prolip.errors import UserError, check, check_choice, check_seed

DEFAULT_TEMPLATES = "{}", "a photo of a {}."
"""Models trained on short captions know the first, CLIP models the second."""
Score = Literal["csd", "mean"]
Prior = Literal["uniform", "inverse_var", "inverse_var_squared", "inverse_var_fifth"]
Observed = Literal["draws", "expected"]
MultiplierForm = Literal["once", "official"]
Root = Literal["text", "inclusion", "both"]
InclusionForm = Literal["official", "exact"]


@dataclass(frozen=True, kw_only=True)
class BprwConfig:
    """Bayesian prompt re-weighting. The defaults are the published ones for images without labels."""

    section: ClassVar[str] = ""
    """Prefix of the fields in errors."""
    alpha: float = 5.0
    """Concentration of the symmetric Dirichlet prior on a class's weights. Above 1 it pulls the weights together, and
    the result is unique; below 1 weights can become 0. Published: 5, and 2 with few labels."""
    num_neighbors: int = 10
    """Images that vote for a class: those nearest to its mean prompt, or with labels the first images of the class."""
    num_draws: int = 10
    """Samples of each voting image's Gaussian; with expected observations, the number that it counts as."""
    observations: Observed = "draws"
    """`draws`: samples of the images' Gaussians. `expected`: the expected log-likelihood in closed form."""
    prior: Prior = "inverse_var"
    """Start weights: even, or inversely proportional to the mean of a prompt's variances, their squares or fifth
    powers. With alpha above 1 they change only the number of rounds."""
    var_floor: float = 0.02
    """Added to every variance of a prompt; at least 0."""
    var_multiplier: float = 1.0
    """Factor of every variance of a prompt; above 0."""
    multiplier_form: MultiplierForm = "once"
    """`once`: m * var + floor. `official`: m * (m * var + floor), as the released code computes it."""
    tolerance: float = 1e-12
    """A class has converged if its weights move by no more than this in a round (Euclidean norm)."""
    max_rounds: int = 1000
    """Maximum number of EM rounds per class."""
    seed: int = 0
    """Seed of the draws, which do not depend on the device or the dtype."""

    def __post_init__(self) -> None:
        for field, kind in (("observations", Observed), ("prior", Prior), ("multiplier_form", MultiplierForm)):
            check_choice(f"{self.section}{field}", getattr(self, field), kind)
        minimum = {"num_neighbors": 1, "num_draws": 1, "max_rounds": 1, "var_floor": 0, "tolerance": 0}
        for name in ("alpha", "var_multiplier", *minimum):
            value, low = getattr(self, name), minimum.get(name)
            if not (value > 0 if low is None else low <= value) or value == math.inf:
                rule = "above 0" if low is None else f"at least {low}"
                raise UserError(f"{self.section}{name}", f"must be finite and {rule}", value)
        check_seed(f"{self.section}seed", self.seed)


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """Published filters of prompts by total variance, one classifier per value. A class's most certain prompt stays."""

    by_std_values_per_class: tuple[float, ...] = ()
    """Keep a class's prompts up to its mean plus this many standard deviations."""
    by_std_values_all: tuple[int, ...] = ()
    """Keep this many prompts of all classes together, the most certain ones."""
    by_ranking: tuple[int, ...] = ()
    """Keep this many prompts of each class."""
    by_ranking_classwise: tuple[int, ...] = ()
    """Keep these numbers of prompts, one number per class."""
    by_abs_value: tuple[float, ...] = ()
    """Keep prompts up to this total variance."""
    greedy: bool = False
    """Keep the number of prompts with which a class has the best recall, chosen on the labels that are scored."""


@dataclass(frozen=True, kw_only=True)
class TraversalConfig:
    """Where a walk through a hierarchy ends, and its number of steps."""

    root: Annotated[Root, tyro.conf.Fixed, tyro.conf.Suppress] = "text"  # no flag: the suites take every root and form
    """"text": the embedding of the empty caption; in a hierarchy of images, the mean of all. "inclusion": the item that
    includes the query most. "both": their normalised sum."""
    inclusion: Annotated[InclusionForm, tyro.conf.Fixed, tyro.conf.Suppress] = "official"
    """Score that finds the including item: the published one-sided test, or exact H."""
    num_steps: int = 50
    """Steps from the start to the root; at least 1."""
    root_only: bool = False
    """Look up the item nearest to the root, without a walk."""
    root_weight: float = 1.0
    """With root "both", the weight of the including item, above 0 (the published `n_root`); the text root has weight
    1."""

    def __post_init__(self) -> None:
        check_choice("root", self.root, Root)
        check_choice("inclusion", self.inclusion, InclusionForm)
        check(self.num_steps >= 1, "walk.num_steps", "must be at least 1", self.num_steps)
        check(0 < self.root_weight < math.inf, "walk.root_weight", "must be finite and positive", self.root_weight)
