"""Suite `noise`: how well each score of a pair finds captions that are made wrong.

N pairs, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from prolip.calibration.fitting import fit_logistic
from prolip.datasets.data_set import DataSet, embed_set, open_dataset
from prolip.datasets.labels import caption_members, read_captions
from prolip.errors import check
from prolip.evaluation.config import NoiseOptions, WrongCaption
from prolip.evaluation.decisions import rows_by_score
from prolip.evaluation.evaluate import evaluate_data
from prolip.evaluation.results import Chart, RowId, SuiteResult, TaskCache, TaskResult, row_of_items
from prolip.gaussian import Gaussian, inclusion_score
from prolip.inference.model import Model
from prolip.metrics.pair_posteriors import Pairs, pair_posteriors
from prolip.metrics.uncertainty_scores import risk_curve
from prolip.report.charts import Line, line_chart
from prolip.report.words import spoken

_VARIANCES = ("image_variance", "caption_variance")
_MAIN = ("csd", "caption_variance", "csd_and_variances")
"""Those whose differences from the cosine are main figures."""
_NUM_FOLDS = 5
_RIDGE = 1e-3


def run_noise(model: Model, options: NoiseOptions, cache: TaskCache) -> SuiteResult:
    """Measure every data set."""
    opened = partial(open_dataset, store=options.store, selection=options.selection)
    lacks = "scores of variances"
    return evaluate_data("noise", model, options, options.data, cache, opened, find_wrong, needs_variances=lacks)


def find_wrong(model: Model, data: DataSet, options: NoiseOptions) -> TaskResult:
    """In one data set, by the first caption of each image."""
    found = embed_set(model, data, options.batch_size, *caption_members(options.caption_key))
    own = [texts[0] for texts in read_captions(data, found, options.caption_key).texts]
    result = TaskResult(rows=[])
    for kind in options.kind:
        given, wrong = make_wrong(own, kind, options.swap, options.seed)
        num_wrong = int(wrong.sum())
        enough = _NUM_FOLDS <= num_wrong <= len(own) - _NUM_FOLDS
        check(enough, "swap", f"must leave {_NUM_FOLDS} wrong and {_NUM_FOLDS} right captions of {len(own)}", num_wrong)
        scores = pair_scores(model, found.gaussian, model.encoder.embed_captions(given))
        if "csd" in scores:
            features = torch.stack([scores[each] for each in ("csd", *_VARIANCES)], dim=1)
            scores["csd_and_variances"] = combined_score(features, wrong, options.seed)
        columns = {(each, ""): (score, wrong) for each, score in scores.items()}
        result.rows.extend(rows_by_score(RowId("wrong_pair_auroc", other=kind), columns, "auroc", _MAIN, "mean"))
        result.rows.extend(
            row_of_items(RowId("average_precision", by=each, other=kind), score, wrong, statistic="average_precision")
            for each, score in scores.items()
        )
        text = f"Wrong pairs among those kept, if the least suspect are kept. {wrong.double().mean():.1%} are wrong."
        curves = [
            Line(spoken(each), *(some.tolist() for some in risk_curve(score, ~wrong))) for each, score in scores.items()
        ]
        drawn = line_chart("Wrong pairs", text, curves, x_label="share kept", y_scale="from zero", percent=True)
        result.charts.append(Chart(title=f"wrong pairs by share kept, {kind}", text=text, svg=drawn))
    return result


def make_wrong(captions: Sequence[str], kind: WrongCaption, share: float, seed: int) -> tuple[list[str], Tensor]:
    """Replace a drawn share; returns the captions, and which differ from their own, bool [N]."""
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
    zeros = torch.zeros(len(image), dtype=torch.float64)
    pairs = Pairs(torch.arange(len(image)), image, caption, zeros, zeros)
    posteriors = partial(pair_posteriors, count=len(image), logit_scale=model.logit_scale)
    scores = {"mean": -(image * caption).sum(dim=1), "mean_posterior": -posteriors(pairs, pairs)}
    if model.has_variances:
        spreads = images.total_var.double(), captions.total_var.double()
        scores |= dict(zip(_VARIANCES, spreads, strict=True))
        scores["csd"] = (image - caption).square().sum(dim=1) + sum(spreads)
        pairs = pairs._replace(image_var=spreads[0], text_var=spreads[1])
        scores["csd_posterior"] = -posteriors(pairs, pairs)
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
