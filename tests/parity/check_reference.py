"""Compares an implementation of ProLIP with recorded numbers of the released code, case by case.

    python -m tests.parity.check_reference FOLDER --adapter tests.parity.adapter:Adapter

FOLDER holds files X.json (settings) and X.safetensors (numbers). What a folder lacks is not compared, so the subset in
`tests/parity/vectors` and the full set are read by the same code. An adapter raises NotImplementedError for what it
does not offer; that case is then skipped.
"""

import argparse
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tests.parity import reference_cases as quantities
from tests.parity.recorded import Comparison, Recorded


@dataclass(frozen=True)
class Case:
    """Quantities that are computed together from one set of inputs."""

    name: str
    compare: Callable[[Any], Iterator[Comparison]]
    """From an adapter to its comparisons."""

    def __str__(self):
        return self.name


class Result(NamedTuple):
    """What a case gave: its comparisons, or why there are none."""

    case: str
    comparisons: list[Comparison]
    skipped: str | None
    raised: str | None


# ---------------------------------------------------------------------------------------------------------------------
# The cases of a folder

Compare = Callable[[Any], Iterator[Comparison]]


def each(recorded, names, compare, prefix=""):
    """A case for each of `names`, all compared in one way."""
    return {f"{prefix}{name}": partial(compare, recorded, name) for name in names}


def cases_of_model(recorded):
    kinds = [kind for kind, *_ in quantities.TYPES if f"out.{kind}.image.mean_raw" in recorded.numbers]
    return {
        **each(recorded, kinds, quantities.model_outputs),
        "gradients": partial(quantities.model_gradients, recorded),
    }


def cases_of_worlds(recorded):
    worlds = recorded.settings["worlds"]
    return {
        **each(recorded, worlds, quantities.loss_of_all_ranks, "single."),
        **each(recorded, worlds, quantities.loss_of_each_rank, "rank."),
    }


def cases_of_pairs(recorded):
    return {
        "distances": partial(quantities.pair_distances, recorded),
        "inclusion": partial(quantities.pair_inclusion, recorded),
    }


def cases_of_prompts(recorded):
    whole = [name for name in ("full_nn", "full_fs") if f"{name}.mc_draws" in recorded.numbers]
    average = (
        {"average": partial(quantities.average_prompts, recorded)}
        if "zeroshot.agg.classifier" in recorded.numbers
        else {}
    )
    return {
        **each(recorded, recorded.settings["em_cases"], quantities.em_weights, "em."),
        **each(recorded, whole, quantities.whole_bprw),
        **each(recorded, recorded.settings["filters"], quantities.prompt_filter, "filter."),
        **average,
    }


def cases_of_tables(recorded):
    names = {**{kind: recorded.settings[kind] for kind in ("visual", "text")}, "token": ["grow"]}
    return {
        f"{kind}.{name}": partial(quantities.resized_table, recorded, kind, name)
        for kind, some in names.items()
        for name in some
    }


def cases_of_masks(recorded):
    rows = each(recorded, recorded.settings["cases"], quantities.masked_tokens)
    return {**rows, "patches": partial(quantities.kept_patches, recorded)}


def cases_of_evaluation(recorded):
    return {
        **each(recorded, recorded.settings["unc_bins"], quantities.uncertainty_bins, "bins."),
        **each(recorded, ("plain", "unc"), quantities.zero_shot, "zero_shot."),
        "retrieval": partial(quantities.retrieval, recorded),
    }


def cases_of_training(recorded):
    decay = each(recorded, recorded.settings["decay_groups"], quantities.parameters_without_decay, "decay.")
    indices = range(len(recorded.settings["schedules"]))
    return {**decay, **{f"rates.{index}": partial(quantities.learning_rates, recorded, index) for index in indices}}


FILES = {
    **dict.fromkeys(("model_A", "model_B", "model_C", "model_D"), cases_of_model),
    "loss": lambda recorded: each(recorded, recorded.settings["cases"], quantities.loss_terms),
    "loss_distributed": cases_of_worlds,
    "pairwise": cases_of_pairs,
    "bprw": cases_of_prompts,
    "resize": cases_of_tables,
    "masking": cases_of_masks,
    "train_steps": lambda recorded: {"steps": partial(quantities.training_steps, recorded)},
    "eval": cases_of_evaluation,
    "hcaps": lambda recorded: each(recorded, recorded.settings["runs"], quantities.hierarcaps),
    "schedule": cases_of_training,
    "hf_layout": lambda recorded: {"layout": partial(quantities.checkpoint_layout, recorded)},
}


def cases(folder):
    """Every case of the files that `folder` has, named FILE.CASE."""
    found = [name for name in FILES if (folder / f"{name}.json").is_file()]
    return [
        Case(f"{file}.{name}", compare)
        for file in found
        for name, compare in FILES[file](Recorded.read(folder, file)).items()
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Running them


def check(case, adapter):
    """Runs a case; what it raises is its result, and so is that nothing was compared."""
    comparisons = []
    try:
        comparisons.extend(case.compare(adapter))
    except NotImplementedError as error:
        return Result(case.name, comparisons, str(error) or "the adapter does not offer it", None)
    except Exception as error:  # noqa: BLE001 - another implementation may raise anything
        return Result(case.name, comparisons, None, f"{type(error).__name__}: {error}")
    return Result(case.name, comparisons, None, None if comparisons else "nothing is recorded")


def main():
    """Prints what failed and what was skipped, then the counts; the status is 1 if something failed or nothing ran."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--adapter", required=True, help="MODULE:CLASS")
    parser.add_argument("--verbose", action="store_true", help="print every comparison")
    options = parser.parse_args()
    module, _, name = options.adapter.partition(":")
    adapter = getattr(importlib.import_module(module), name)()
    passed = failed = skipped = 0
    for case in cases(options.folder):
        result = check(case, adapter)
        for one in result.comparisons:
            passed, failed = passed + one.passed, failed + (not one.passed)
            if options.verbose or not one.passed:
                print(f"{'passed' if one.passed else 'FAILED'}  {result.case}: {one.name}, off by {one.error:.3g}")
        if result.raised is not None:
            failed += 1
            print(f"FAILED  {result.case}: {result.raised}")
        elif result.skipped is not None:
            skipped += 1
            print(f"skipped {result.case}: {result.skipped}")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    raise SystemExit(main())
