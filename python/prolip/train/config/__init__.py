"""The settings of a training run: dataclasses, recipes, and the options of related commands."""

from prolip.train.config.log import LogConfig
from prolip.train.config.optim import EmaConfig, OptimConfig
from prolip.train.config.parallel import ParallelConfig
from prolip.train.config.recipes import differing_keys, from_toml, known_recipes, load_config, to_toml
from prolip.train.config.run import TrainConfig
from prolip.train.config.validation import ValidationConfig, ValidationJob

__all__ = [
    "EmaConfig",
    "LogConfig",
    "OptimConfig",
    "ParallelConfig",
    "TrainConfig",
    "ValidationConfig",
    "ValidationJob",
    "differing_keys",
    "from_toml",
    "known_recipes",
    "load_config",
    "to_toml",
]
