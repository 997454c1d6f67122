"""Settings of the measures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro

from prolip.errors import UserError, check_choice, check_seed

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
    """What errors write before the name of a setting: where a command has its options."""
    alpha: float = 5.0
    """Concentration of the symmetric Dirichlet prior on a class's weights; above 0. Above 1 it pulls the weights
    together, and the result is unique. Below 1 weights can become exactly 0. Published: 5 without labels, 2 with few
    labels."""
    num_neighbors: int = 10
    """Images that vote for a class: those nearest to its mean prompt, or with labels the first images of the class."""
    num_draws: int = 10
    """Samples drawn from each voting image's Gaussian; with expected observations, the number of samples it counts
    as."""
    observations: Observed = "draws"
    """`draws`: samples of the images' Gaussians. `expected`: no samples, but the expected log-likelihood in closed
    form."""
    prior: Prior = "inverse_var"
    """Start weights: even, or inversely proportional to the mean over dimensions of a prompt's variance, squared
    variance, or fifth power of the variance. With alpha above 1 this changes only the number of rounds."""
    var_floor: float = 0.02
    """Added to every variance of a prompt; at least 0."""
    var_multiplier: float = 1.0
    """Factor of every variance of a prompt; above 0."""
    multiplier_form: MultiplierForm = "once"
    """`once`: m * var + floor. `official`: m * (m * var + floor), as the released code computes it."""
    tolerance: float = 1e-12
    """A class has converged when its weights move by less than this (Euclidean norm) in a round."""
    max_rounds: int = 1000
    """Largest number of EM rounds per class."""
    seed: int = 0
    """Seed of the draws, which do not depend on the device, the dtype or the memory limit."""

    def __post_init__(self) -> None:
        for field, kind in (("observations", Observed), ("prior", Prior), ("multiplier_form", MultiplierForm)):
            check_choice(f"{self.section}{field}", getattr(self, field), kind)
        rules = {
            "alpha": (0 < self.alpha < math.inf, "above 0 and finite"),
            "num_neighbors": (self.num_neighbors >= 1, "at least 1"),
            "num_draws": (self.num_draws >= 1, "at least 1"),
            "var_floor": (0 <= self.var_floor < math.inf, "at least 0 and finite"),
            "var_multiplier": (0 < self.var_multiplier < math.inf, "above 0 and finite"),
            "tolerance": (self.tolerance >= 0, "at least 0"),
            "max_rounds": (self.max_rounds >= 1, "at least 1"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise UserError(f"{self.section}{name} is {getattr(self, name)}: it must be {rule}")
        check_seed(f"{self.section}seed", self.seed)


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
    """With root "both", the weight of the including item, above 0; the text root has weight 1. (The published `n_root`
    adds the item that many times.)"""

    def __post_init__(self) -> None:
        check_choice("root", self.root, Root)
        check_choice("inclusion", self.inclusion, InclusionForm)
        if self.num_steps < 1:
            raise UserError(f"walk.num_steps is {self.num_steps}: it must be at least 1")
        if not 0 < self.root_weight < math.inf:
            raise UserError(f"walk.root_weight is {self.root_weight}: it must be finite and positive")
