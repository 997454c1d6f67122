"""Estimate the cost of a training step: parameters, FLOPs, and the peak FLOPS of known GPUs.

Everything is computed from the model's sizes and from which of its parameters are trained.
"""

from prolip.train.cost.devices import Arithmetic, known_cards, peak_flops
from prolip.train.cost.flops import StepFlops, mean_step_flops, step_flops
from prolip.train.cost.parameters import Parameters, blank, count_parameters, trained_model

__all__ = [
    "Arithmetic",
    "Parameters",
    "StepFlops",
    "blank",
    "count_parameters",
    "known_cards",
    "mean_step_flops",
    "peak_flops",
    "step_flops",
    "trained_model",
]
