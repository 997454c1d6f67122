"""`prolip eval`: benchmarks that run a model on data sets and return rows of figures; their data sets and results."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from prolip.suites.config import (
    DatacompOptions,
    HierarcapsOptions,
    HierarimgsOptions,
    ImagenetOptions,
    RetrievalOptions,
    ReweightOptions,
    SuiteOptions,
    UncertaintyOptions,
)

if TYPE_CHECKING:
    from prolip.suites.coco_pairs import load_truth
    from prolip.suites.csv_datasets import read_levels
    from prolip.suites.datacomp import run_datacomp
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

__all__ = [
    "Chart",
    "DatacompOptions",
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
    "imagenet_classnames",
    "imagenet_templates",
    "load_prompt_weights",
    "load_truth",
    "read_levels",
    "read_tasks",
    "run_datacomp",
    "run_hierarcaps",
    "run_hierarimgs",
    "run_imagenet",
    "run_retrieval",
    "run_reweight",
    "run_suite",
    "run_uncertainty",
    "save_prompt_weights",
    "write_results",
]

_LAZY = {
    "load_truth": "coco_pairs",
    "read_levels": "csv_datasets",
    "run_datacomp": "datacomp",
    "run_hierarcaps": "hierarchies",
    "run_hierarimgs": "hierarchies",
    "run_imagenet": "imagenet",
    "load_prompt_weights": "prompt_weights",
    "save_prompt_weights": "prompt_weights",
    "write_results": "result_files",
    "Chart": "results",
    "Row": "results",
    "SuiteResult": "results",
    "TaskCache": "results",
    "TaskResult": "results",
    "run_retrieval": "retrieval",
    "run_reweight": "reweight",
    "run_suite": "run",
    "Task": "tasks",
    "read_tasks": "tasks",
    "imagenet_classnames": "templates",
    "imagenet_templates": "templates",
    "run_uncertainty": "uncertainty",
}


def __getattr__(name: str) -> Any:
    """Import a suite, and torch with it, when it is first used, so that the options stay light."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
