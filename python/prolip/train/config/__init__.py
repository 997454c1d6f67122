"""The settings of a training run: dataclasses, recipes, and the options of related commands."""

from prolip.train.config.recipes import differing_keys, from_toml, known_recipes, load_config, to_toml
from prolip.train.config.run import TrainConfig
from prolip.train.config.sections import (
    EmaConfig,
    LogConfig,
    OptimConfig,
    ParallelConfig,
    ValidationConfig,
    ValidationJob,
)

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
