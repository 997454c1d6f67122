"""`prolip eval`: benchmarks that run a model on data sets and return rows of figures; their data sets and results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prolip.lazy import lazy_names
from prolip.suites.config import (
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

if TYPE_CHECKING:
    from prolip.suites.calibrate import run_calibrate
    from prolip.suites.coco_pairs import load_truth
    from prolip.suites.csv_datasets import read_levels
    from prolip.suites.datacomp import run_datacomp
    from prolip.suites.decisions import run_decisions
    from prolip.suites.hierarchies import run_hierarcaps, run_hierarimgs
    from prolip.suites.imagenet import run_imagenet
    from prolip.suites.prompt_weights import load_prompt_weights, save_prompt_weights
    from prolip.suites.result_files import write_results
    from prolip.suites.results import Chart, Row, SuiteResult, TaskCache, TaskResult
    from prolip.suites.retrieval import run_retrieval
    from prolip.suites.reweight import run_reweight
    from prolip.suites.run import run_suite
    from prolip.suites.tasks import Task, read_tasks
    from prolip.suites.templates import imagenet_classnames, imagenet_templates
    from prolip.suites.uncertainty import run_uncertainty
    from prolip.suites.zero_shot import run_zero_shot

__all__ = [
    "CalibrateOptions",
    "Chart",
    "DatacompOptions",
    "DecisionsOptions",
    "HierarcapsOptions",
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
    "write_results",
]

__getattr__ = lazy_names(__name__, __file__)
