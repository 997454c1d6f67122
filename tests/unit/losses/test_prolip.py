"""The loss and its terms: averages over slots, precision, memory, errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.support.refusals import refusal_of

from prolip.distributed import Peers
from prolip.gaussian import Gaussian
from prolip.losses import ProlipLoss, inclusion_loss
from prolip.losses.config import InclusionForm, LossConfig
from prolip.models import ProLIPOutput

BATCH, MASKED, SLOTS, DIM = 6, 2, 3, 5
EVERYTHING = LossConfig(
    ppcl_weight=0.5, inclusion_weight=0.4, masked_inclusion_weight=0.3, vib_weight=0.2, inclusion_scale=2.0
)


def gaussian(*shape: int, seed: int) -> Gaussian:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(*shape, DIM, generator=generator, dtype=torch.float64)
    log_var = torch.randn(*shape, DIM, generator=generator, dtype=torch.float64) - 4
    return Gaussian(F.normalize(mean, dim=-1), log_var)


def output(*, masked: bool = True) -> ProLIPOutput:
    return ProLIPOutput(
        image=gaussian(BATCH, seed=0),
        text=gaussian(SLOTS, BATCH, seed=1),
        masked_image=gaussian(MASKED, seed=2) if masked else None,
        masked_text=gaussian(SLOTS, MASKED, seed=3) if masked else None,
        logit_scale=torch.tensor(10.0, dtype=torch.float64),
        logit_bias=torch.tensor(-5.0, dtype=torch.float64),
    )


def one_slot(whole: ProLIPOutput, slot: int) -> ProLIPOutput:
    assert whole.masked_text is not None
    return whole._replace(
        text=Gaussian(*(part[slot : slot + 1] for part in whole.text)),
        masked_text=Gaussian(*(part[slot : slot + 1] for part in whole.masked_text)),
    )


def test_every_term_is_averaged_over_caption_slots() -> None:
    loss = ProlipLoss(EVERYTHING, Peers())
    whole = output()
    slots = torch.stack([torch.stack(loss(one_slot(whole, slot))) for slot in range(SLOTS)])
    torch.testing.assert_close(torch.stack(loss(whole)), slots.mean(0))


def test_total_is_the_sum_of_the_terms() -> None:
    terms = ProlipLoss(EVERYTHING, Peers())(output())
    torch.testing.assert_close(terms.total, torch.stack(terms[1:]).sum())
    assert all(term > 0 for term in terms)


@pytest.mark.parametrize("form", ["official", "exact"])
def test_inclusion_loss_is_small_if_the_general_side_is_wider(form: InclusionForm) -> None:
    narrow = gaussian(BATCH, seed=0)
    wide = Gaussian(narrow.mean, narrow.log_var + 1)
    assert float(inclusion_loss(narrow, wide, form=form, scale=20.0, eps=-20.0)) < 0.01
    assert float(inclusion_loss(wide, narrow, form=form, scale=20.0, eps=-20.0)) > 1


def test_terms_that_are_off_or_have_no_masked_views_are_zero() -> None:
    only = LossConfig(inclusion_weight=0.0, masked_inclusion_weight=0.0, vib_weight=0.0)
    terms = ProlipLoss(only, Peers())(output())
    assert [float(term) for term in terms[2:]] == [0.0] * 4
    terms = ProlipLoss(EVERYTHING, Peers())(output(masked=False))
    assert float(terms.masked_image_inclusion) == float(terms.masked_text_inclusion) == 0.0
    empty = output()._replace(masked_image=gaussian(0, seed=0), masked_text=gaussian(SLOTS, 0, seed=0))
    assert math.isfinite(float(ProlipLoss(EVERYTHING, Peers())(empty).total))


def test_a_missing_bias_or_text_is_refused() -> None:
    given = output()
    with refusal_of("model.init_logit_bias"):
        ProlipLoss(LossConfig(), Peers())(given._replace(logit_bias=None))
    fewer = given._replace(text=Gaussian(given.text.mean[:, 1:], given.text.log_var[:, 1:]))
    with pytest.raises(ValueError, match="texts: "):
        ProlipLoss(LossConfig(), Peers())(fewer)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vib_weight", -1),
        ("inclusion_scale", 0),
        ("variance_scale", 0),
        ("contrast", "foo"),
        ("vib_form", "Exact"),
    ],
)
def test_settings_out_of_range_are_refused(name: str, value: Any) -> None:
    with refusal_of(f"loss.{name}"):
        LossConfig(**{name: value})
