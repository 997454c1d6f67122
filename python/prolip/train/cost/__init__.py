"""What a training step costs before it is taken: parameters, operations, memory, and what a device could do.

Everything follows from the sizes of a model and from which of its parameters are trained.
"""

from prolip.train.cost.devices import Arithmetic, known_cards, peak_flops
from prolip.train.cost.flops import StepFlops, step_flops
from prolip.train.cost.memory import StepMemory, step_memory
from prolip.train.cost.parameters import Parameters, blank, count_parameters

__all__ = [
    "Arithmetic",
    "Parameters",
    "StepFlops",
    "StepMemory",
    "blank",
    "count_parameters",
    "known_cards",
    "peak_flops",
    "step_flops",
    "step_memory",
]
