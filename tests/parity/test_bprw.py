"""Prompt re-weighting and prompt filters against recorded numbers of the released code, in double precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.parity.adapter import Adapter, bprw_config, fit_observations

from prolip.eval.bprw import nearest_images, reweight_from_voters
from prolip.gaussian import Gaussian

VECTORS = Path(__file__).resolve().parent / "vectors"
SETTINGS: dict[str, Any] = json.loads((VECTORS / "bprw.json").read_text(encoding="utf-8"))
NUMBERS = load_file(VECTORS / "bprw.safetensors")
PROMPTS = Gaussian(NUMBERS["em.in.prompt_means"], NUMBERS["em.in.prompt_logvar"])


@pytest.mark.parametrize("name", list(SETTINGS["em_cases"]))
def test_weights_of_all_classes_at_once(name: str) -> None:
    case = SETTINGS["em_cases"][name]
    observed = NUMBERS["em.in.observations"]
    # The released start vector is float32 for even weights: 1e-7 early, nothing at convergence.
    for key, rounds, bound in (
        ("weights_after_1", 1, 2e-7),
        ("weights_after_5", 5, 2e-7),
        ("weights", SETTINGS["max_iter"], 1e-8),
    ):
        rule = bprw_config(
            case["alpha"],
            case["var_multi"],
            case["stable_eps"],
            case["prior"],
            tolerance=SETTINGS["tol"],
            max_rounds=rounds,
        )
        found = fit_observations(PROMPTS, observed, rule)
        torch.testing.assert_close(found.weights, NUMBERS[f"em.{name}.{key}"], atol=bound, rtol=1e-6)
    # Two ways of adding the same numbers may differ by a round at a tolerance near the last digit.
    assert (found.rounds - torch.tensor(case["iterations"])).abs().max() <= 2


def test_the_multiplier_counts_once_unless_the_released_form_is_asked_for() -> None:
    """A deliberate departure: the released code multiplies variances by it twice."""
    observed = NUMBERS["em.in.observations"]
    recorded = NUMBERS["em.var_multi3.weights"]
    official = bprw_config(2.0, 3.0, 0.02, "inverse")
    once = bprw_config(2.0, 3.0, 0.02, "inverse", multiplier_form="once")
    torch.testing.assert_close(fit_observations(PROMPTS, observed, official).weights, recorded, atol=1e-8, rtol=0)
    assert (fit_observations(PROMPTS, observed, once).weights - recorded).abs().max() > 1e-3


def test_the_whole_re_weighting_from_nearest_images() -> None:
    case = SETTINGS["full_nn"]
    images = Gaussian(NUMBERS["full.image_mean"], NUMBERS["full.image_logvar"])
    rule = bprw_config(
        case["alpha"],
        case["multiplier"],
        case["stable_eps"],
        case["prior"],
        num_neighbors=case["nn"],
        num_draws=case["mc_per_image"],
    )
    voters = nearest_images(PROMPTS, images, case["nn"])
    assert torch.equal(voters, NUMBERS["full_nn.neighbours"])
    few = slice(0, case["classes_of_mc_draws"])
    prompts = Gaussian(PROMPTS.mean[few], PROMPTS.log_var[few])
    found = reweight_from_voters(prompts, images, voters[few], rule, NUMBERS["full_nn.mc_draws"].double())
    # The released standard deviations pass through float32.
    torch.testing.assert_close(found.weights, NUMBERS["full_nn.weights"][few], atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(found.classifier.T, NUMBERS["full_nn.classifier"][:, few], atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(found.variances.T, NUMBERS["full_nn.variances"][:, few], atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("name", list(SETTINGS["filters"]))
def test_prompt_filters(name: str) -> None:
    case = SETTINGS["filters"][name]
    means = NUMBERS.get("filter.in.means", PROMPTS.mean)
    weight, variances = Adapter().filter_prompts(case["method"], means, NUMBERS["filter.in.vars"], case["coeff"])
    torch.testing.assert_close(weight, NUMBERS[f"filter.{name}.classifier"], atol=1e-11, rtol=1e-9)
    if f"filter.{name}.variances" in NUMBERS:
        torch.testing.assert_close(variances, NUMBERS[f"filter.{name}.variances"], atol=1e-12, rtol=1e-9)
