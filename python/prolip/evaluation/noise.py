"""Suite `noise`: some captions are made wrong, and each score of a pair is measured by how well it finds them.

N pairs, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from prolip.calibration.fitting import fit_logistic
from prolip.embeddings.embed import embed_captions
from prolip.errors import check
from prolip.evaluation.config import NoiseOptions, WrongCaption
from prolip.evaluation.datasets import DataSet, caption_members, embed_set, open_dataset, read_captions
from prolip.evaluation.decisions import rows_by_score
from prolip.evaluation.evaluate import evaluate_data
from prolip.evaluation.results import Chart, SuiteResult, TaskCache, TaskResult, row_of_items
from prolip.gaussian import Gaussian, inclusion_score
from prolip.inference.model import Model
from prolip.metrics.uncertainty_scores import risk_curve
from prolip.report.charts import Line, line_chart

COSINE, DISTANCE, COMBINED = "cosine", "sampled distance", "distance and both variances"
_VARIANCES = ("image's variance", "caption's variance")
_MAIN = (DISTANCE, "caption's variance", COMBINED)
"""Scores whose differences from `COSINE` are main figures."""
_NUM_FOLDS = 5
_RIDGE = 1e-3


def run_noise(model: Model, options: NoiseOptions, cache: TaskCache) -> SuiteResult:
    """Measure every data set."""
    opened = partial(open_dataset, store=options.store, selection=options.selection)
    settings = {"options": [options.caption_key, options.swap, options.kind, options.seed]}
    measure = partial(find_wrong, model, options=options)
    return evaluate_data("noise", model, options.data, cache, opened, measure, settings, "scores of variances")


def find_wrong(model: Model, name: str, data: DataSet, options: NoiseOptions) -> TaskResult:
    """Measure one data set, with the first caption of each image."""
    found = embed_set(model, data, options.batch_size, *caption_members(options.caption_key))
    own = [texts[0] for texts in read_captions(data, found, options.caption_key).texts]
    result = TaskResult(rows=[])
    for kind in options.kind:
        given, wrong = make_wrong(own, kind, options.swap, options.seed)
        num_wrong = int(wrong.sum())
        enough = _NUM_FOLDS <= num_wrong <= len(own) - _NUM_FOLDS
        check(enough, "swap", f"must leave {_NUM_FOLDS} wrong and {_NUM_FOLDS} right captions of {len(own)}", num_wrong)
        scores = pair_scores(model, found.gaussian, embed_captions(model, given))
        if DISTANCE in scores:
            features = torch.stack([scores[each] for each in (DISTANCE, *_VARIANCES)], dim=1)
            scores[COMBINED] = combined_score(features, wrong, options.seed)
        title, columns = f"{name}, {kind}", {each: (score, wrong) for each, score in scores.items()}
        result.rows.extend(rows_by_score(title, "AUROC of wrong pairs", columns, "auroc", _MAIN, COSINE))
        result.rows.extend(
            row_of_items(title, f"average precision by {each}", score, wrong.long(), statistic="average_precision")
            for each, score in scores.items()
        )
        text = f"Wrong pairs among those kept, if the least suspect are kept. {wrong.double().mean():.1%} are wrong."
        curves = [Line(each, *(some.tolist() for some in risk_curve(score, ~wrong))) for each, score in scores.items()]
        drawn = line_chart("Wrong pairs", text, curves, x_label="share kept", y_scale="from zero", percent=True)
        result.charts.append(Chart(group=title, title="wrong pairs by share kept", text=text, svg=drawn))
    return result


def make_wrong(captions: Sequence[str], kind: WrongCaption, share: float, seed: int) -> tuple[list[str], Tensor]:
    """The captions with a drawn share of them replaced, and which of them differ from their own, bool [N]."""
    order = torch.randperm(len(captions), generator=torch.Generator().manual_seed(seed)).tolist()
    given, drawn = list(captions), order[: round(share * len(captions))]
    for place, other in zip(drawn, [*drawn[1:], *drawn[:1]], strict=True):
        words = captions[place].split()
        replaced = {"swap": captions[other], "truncate": " ".join(words[: -(-len(words) // 2)]), "generic": "an image"}
        given[place] = replaced[kind]
    return given, torch.tensor([new != old for new, old in zip(given, captions, strict=True)])


def pair_scores(model: Model, images: Gaussian, captions: Gaussian) -> dict[str, Tensor]:
    """How suspect each pair of an image and a caption is, by every score of the model, f64 [N]."""
    image, caption = images.mean.double(), captions.mean.double()
    scores = {COSINE: -(image * caption).sum(dim=1)}
    if model.has_variances:
        spreads = images.total_var.double(), captions.total_var.double()
        scores |= dict(zip(_VARIANCES, spreads, strict=True))
        if model.has_variances:
            scores[DISTANCE] = (image - caption).square().sum(dim=1) + sum(spreads)
            scores["inclusion"] = -inclusion_score(images, captions).double().sum(dim=1)
    return scores


def combined_score(features: Tensor, wrong: Tensor, seed: int) -> Tensor:
    """Probability that a pair is wrong by its features, f64 [N, F], in a logistic regression fitted on other folds."""
    order = torch.randperm(len(wrong), generator=torch.Generator().manual_seed(seed))
    folds = torch.empty_like(order)
    folds[order[wrong[order].argsort(stable=True)]] = torch.arange(len(order)) % _NUM_FOLDS  # each has wrong pairs
    score = torch.empty(len(wrong), dtype=torch.float64)
    for fold in range(_NUM_FOLDS):
        inside = folds == fold
        weights = fit_logistic(features[~inside], wrong[~inside], ridge=_RIDGE)
        score[inside] = (features[inside] @ weights[:-1] + weights[-1]).sigmoid()
    return score
