"""`prolip eval SUITE`: evaluate models side by side."""

from __future__ import annotations

from functools import partial

from prolip import evaluation
from prolip.cli import demo
from prolip.cli.command import Command, Suite, choose, finish, parse, prepare
from prolip.evaluation.config import (
    CalibrationOptions,
    DatacompOptions,
    DecisionsOptions,
    HierarcapsOptions,
    HierarimgsOptions,
    NoiseOptions,
    RetrievalOptions,
    UncertaintyOptions,
    ZeroShotOptions,
)

SUITES = {
    "zero_shot": Suite(
        "your own images in class folders, by accuracy and recall", ZeroShotOptions, lambda: evaluation.run_zero_shot
    ),
    "datacomp": Suite(
        "DataComp's 38 tasks and two fairness extras, or tasks of your own, each by its own metric",
        DatacompOptions,
        lambda: evaluation.run_datacomp,
    ),
    "retrieval": Suite(
        "image-text retrieval both ways: Flickr, COCO 1K and 5K, CxC, ECCV Caption, or your own pairs",
        RetrievalOptions,
        lambda: evaluation.run_retrieval,
    ),
    "hierarcaps": Suite(
        "from images up through captions of four levels: traversal, inclusion, uncertainty by level",
        HierarcapsOptions,
        lambda: evaluation.run_hierarcaps,
    ),
    "hierarimgs": Suite(
        "from captions up through images of several levels", HierarimgsOptions, lambda: evaluation.run_hierarimgs
    ),
    "uncertainty": Suite(
        "uncertainty against accuracy and length, and after hiding or blurring",
        UncertaintyOptions,
        lambda: evaluation.run_uncertainty,
    ),
    "noise": Suite(
        "how well each score of an image and its caption finds wrong captions",
        NoiseOptions,
        lambda: evaluation.run_noise,
    ),
    "decisions": Suite(
        "wrong answers, calibration, label sets, out-of-distribution images",
        DecisionsOptions,
        lambda: evaluation.run_decisions,
    ),
    "calibration": Suite(
        "whether the label sets and answers of a calibrated model keep their promises on new images",
        CalibrationOptions,
        lambda: evaluation.run_calibration,
    ),
    **demo.SUITES,
}


def run(prog: str, arguments: list[str]) -> int:
    """Run the suite that the first argument names."""
    return choose(
        prog, {name: Command(suite.summary, partial(_run, suite)) for name, suite in SUITES.items()}, arguments
    )


def _run(suite: Suite, prog: str, arguments: list[str]) -> int:
    options = parse(suite.options, prog, arguments)
    prepare()
    from prolip.evaluation.evaluate import run_suite

    name = prog.rsplit(maxsplit=1)[-1]
    lines = run_suite(name, options, suite.load())
    out = options.folder(name)
    written = [out / f"results.{kind}" for kind in ("json", "md", "html")]
    return finish(lines, f"open {out / 'results.html'} in a browser", written)
