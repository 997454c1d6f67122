"""The released code's hyper-parameters under our names, and our loss terms under its names, with its guards."""

import torch
from torch import Tensor

from prolip.distributed import Peers
from prolip.losses import ProlipLoss, vib_loss
from prolip.losses.config import LossConfig
from prolip.metrics import bprw
from prolip.metrics.mixture_weights import fit_weights, prior_weights

Terms = dict[str, Tensor]
_INCLUSION_LIMIT = 1e5
_VIB_LIMIT = 1e4


def loss_config(hyper):
    """Our names for the released code's hyper-parameters."""
    return LossConfig(
        ppcl_weight=hyper["ppcl_lambda"],
        inclusion_weight=hyper["inclusion_alpha"],
        masked_inclusion_weight=hyper["inclusion_alpha_occ"],
        vib_weight=hyper["vib_beta"],
        inclusion_form="official",
        inclusion_scale=hyper["inclusion_loss_scale"],
        inclusion_eps=hyper["inclusion_loss_eps"],
        vib_form="official",
    )


def official_terms(output, config):
    """The library's terms under the released names, with the released guards."""
    terms = ProlipLoss(config, Peers())(output)
    named = {"ppcl": terms.ppcl}
    weighted = []
    if output.masked_image is not None:
        weighted.append(("img_inclusion", terms.masked_image_inclusion, config.masked_inclusion_weight))
        weighted.append(("txt_inclusion", terms.masked_text_inclusion, config.masked_inclusion_weight))
    if config.inclusion_weight > 0:
        weighted.append(("inclusion", terms.inclusion, config.inclusion_weight))
    for name, term, weight in weighted:
        exploded = weight > 0 and abs(float(term.detach())) > _INCLUSION_LIMIT * weight
        named[name] = torch.zeros_like(term) if exploded else term
    if config.vib_weight > 0:
        towers = [vib_loss(tower, form=config.vib_form) for tower in (output.image, output.text)]
        if max(float(tower.detach()) for tower in towers) > _VIB_LIMIT:
            kept = [tower for tower in towers if float(tower.detach()) <= _VIB_LIMIT]
            named["vib"] = config.vib_weight * sum(kept, torch.zeros_like(terms.vib))
        else:
            named["vib"] = terms.vib
    return named


def bprw_config(alpha, multiplier, stable_eps, prior, **rest):
    """Our names for the released code's prompt re-weighting."""
    names = {
        None: "uniform",
        "uniform": "uniform",
        "inverse": "inverse_var",
        "inverse_sq": "inverse_var_squared",
        "inverse_5": "inverse_var_fifth",
    }
    return bprw.BprwConfig(
        alpha=alpha,
        var_multiplier=multiplier,
        var_floor=stable_eps or 0.0,
        prior=names[prior],
        **{"multiplier_form": "official", **rest},
    )


def fit_observations(prompts, observations, config):
    """Weights of prompts [C, K, D] from samples [C, S, D], by the library's steps."""
    seen = bprw.Observations(observations, None, torch.ones_like(observations[..., 0]))
    return fit_weights(
        bprw.log_likelihoods(seen, prompts.mean, bprw.component_vars(prompts.var, config)),
        prior_weights(prompts.log_var, config.prior),
        counts=seen.counts,
        alpha=config.alpha,
        tolerance=config.tolerance,
        max_rounds=config.max_rounds,
    )
