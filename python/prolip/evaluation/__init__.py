"""`prolip eval`: benchmarks that run a model on data sets and return rows of figures; their data sets and results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prolip.evaluation.config import (
    CalibrateOptions,
    DatacompOptions,
    DecisionsOptions,
    HierarcapsOptions,
    HierarimgsOptions,
    ImagenetOptions,
    RetrievalOptions,
    ReweightOptions,
    SuiteOptions,
    UncertaintyOptions,
    ZeroShotOptions,
)
from prolip.lazy import lazy_names

if TYPE_CHECKING:
    from prolip.evaluation.calibrate import run_calibrate
    from prolip.evaluation.classification import run_zero_shot
    from prolip.evaluation.datacomp import Task, read_tasks, run_datacomp
    from prolip.evaluation.datasets import read_levels
    from prolip.evaluation.decisions import run_decisions
    from prolip.evaluation.hierarchies import Hierarchies, run_hierarcaps, run_hierarimgs, walk_rows
    from prolip.evaluation.imagenet import run_imagenet
    from prolip.evaluation.result_files import write_results
    from prolip.evaluation.results import Chart, Row, SuiteResult, TaskCache, TaskResult
    from prolip.evaluation.retrieval import load_truth, recall_rows, run_retrieval
    from prolip.evaluation.reweight import load_prompt_weights, run_reweight, save_prompt_weights
    from prolip.evaluation.run import run_suite
    from prolip.evaluation.templates import imagenet_classnames, imagenet_templates
    from prolip.evaluation.uncertainty import run_uncertainty

__all__ = [
    "CalibrateOptions",
    "Chart",
    "DatacompOptions",
    "DecisionsOptions",
    "HierarcapsOptions",
    "Hierarchies",
    "HierarimgsOptions",
    "ImagenetOptions",
    "RetrievalOptions",
    "ReweightOptions",
    "Row",
    "SuiteOptions",
    "SuiteResult",
    "Task",
    "TaskCache",
    "TaskResult",
    "UncertaintyOptions",
    "ZeroShotOptions",
    "imagenet_classnames",
    "imagenet_templates",
    "load_prompt_weights",
    "load_truth",
    "read_levels",
    "read_tasks",
    "recall_rows",
    "run_calibrate",
    "run_datacomp",
    "run_decisions",
    "run_hierarcaps",
    "run_hierarimgs",
    "run_imagenet",
    "run_retrieval",
    "run_reweight",
    "run_suite",
    "run_uncertainty",
    "run_zero_shot",
    "save_prompt_weights",
    "walk_rows",
    "write_results",
]

__getattr__ = lazy_names(__name__, __file__)
