"""The project's side of the reference checker: it translates names and shapes and contains no mathematics of its own.

    python -m tests.parity.check_reference FOLDER --adapter tests.parity.adapter:Adapter

Two things that exist only in the released training loop are here and not in the library: its exchange between ranks,
and its guards (`released_names.py`), which replace an exploding term by 0.
"""

import sys
from functools import partial

import torch
import torch.nn.functional as F
from tests.parity.released_names import bprw_config, fit_observations, loss_config, official_terms
from tests.support.small_step import ALONE

from prolip import gaussian
from prolip._core import testing
from prolip.distributed import Peers
from prolip.gaussian import Gaussian
from prolip.losses import vib_loss
from prolip.losses.ppcl import ppcl
from prolip.metrics import bprw, hierarchy, prompts, retrieval, uncertainty, zero_shot
from prolip.metrics.config import FilterConfig
from prolip.models import ProLIP, ProLIPOutput
from prolip.models.official_json import from_official_json
from prolip.models.position_tables import resize_image_positions, resize_text_positions, resize_token_table
from prolip.train.config.optim import OptimConfig
from prolip.train.optim import (
    clamp_logit_scale,
    clip_gradients,
    decays,
    learning_rate,
    make_optimizer,
    set_learning_rate,
)


def _checker_base():
    """The base class of a set's own `check_reference.py` if that script runs us: it skips methods that we lack."""
    checker = sys.modules.get("check_reference")
    return checker.Adapter if checker is not None else object


def _pair(f, name):
    return Gaussian(f[f"{name}_mean"], f[f"{name}_logvar"])


def _of_pairs(measure):
    """The measure as a method of two means and log variances each."""
    return staticmethod(lambda mu1, lv1, mu2, lv2, *more: measure(Gaussian(mu1, lv1), Gaussian(mu2, lv2), *more))


class Adapter(_checker_base()):
    """Everything the checker asks for, answered by the library."""

    # -- model

    def load_model(self, config, state, dtype):
        model = ProLIP(from_official_json(config)).to(dtype)
        model.load_state_dict(state, strict=True)
        return model

    def encode_image(self, model, image, keep=None, normalize=False):
        found = model.encode_image(image, keep, normalize=normalize)
        return found.mean, found.log_var if model.config.vision.embed_unc else None

    def encode_text(self, model, text, normalize=False):
        found = model.encode_text(text, normalize=normalize)
        return found.mean, found.log_var if model.config.text.embed_unc else None

    def logit_scale_and_bias(self, model):
        return model.logit_scale.exp(), model.logit_bias

    def named_parameters(self, model):
        return dict(model.named_parameters())

    # -- losses

    def loss_terms(self, f, logit_scale, logit_bias, hyper, negative_scale=None, shift=None):
        image, text = _pair(f, "image"), _pair(f, "text")[None]
        masked = "masked_image_mean" in f
        output = ProLIPOutput(
            image=image,
            text=text,
            masked_image=_pair(f, "masked_image") if masked else None,
            masked_text=_pair(f, "masked_text")[None] if masked else None,
            logit_scale=logit_scale,
            logit_bias=logit_bias,
        )
        named = official_terms(output, loss_config(hyper))
        if hyper["siglip_lambda"] > 0:
            assert negative_scale is not None
            assert shift is not None
            # SigLIP's loss is PPCL between points.
            points = Gaussian.point(image.mean), Gaussian.point(text.mean)
            named["siglip"] = hyper["siglip_lambda"] * ppcl(*points, negative_scale, shift, Peers())
        return named

    def distributed_terms_official(self, f, logit_scale, logit_bias, hyper):
        """The released exchange (specification, section 3.1); the library's own equals a single process instead.

        A rank adds every term once a source of texts, its own first; of an even number of ranks the last source is the
        one before it again instead of the opposite rank.
        """
        world = len(f["text_mean"])
        found = []
        for rank in range(world):
            sources = [hop for i in range(1, (world - 1) // 2 + 1) for hop in (rank + i, rank - i)]
            if world % 2 == 0:
                sources.append(rank - (world - 2) // 2)
            local = {name: value[rank] for name, value in f.items()}
            sums = self.loss_terms(local, logit_scale, logit_bias, hyper)
            for source in sources:
                heard = local | {name: f[name][source % world] for name in ("text_mean", "text_logvar")}
                terms = self.loss_terms(heard, logit_scale, logit_bias, hyper)
                # Another rank's texts are negatives all.
                logits = gaussian.csd_logits(_pair(heard, "image"), _pair(heard, "text"), logit_scale, logit_bias)
                terms["ppcl"] = hyper["ppcl_lambda"] * F.softplus(logits).sum() / len(logits)
                sums = {name: value + terms[name] for name, value in sums.items()}
            found.append(sums)
        return found

    # -- pairwise measures

    csd_logits = _of_pairs(gaussian.csd_logits)
    csd = _of_pairs(gaussian.csd)
    inclusion_test_official = _of_pairs(gaussian.official_inclusion_test)
    inclusion_logit_official = _of_pairs(gaussian.official_inclusion_score)
    inclusion_batchwise_official = _of_pairs(partial(gaussian.official_inclusion_test_matrix, block=200))
    inclusion_exact = _of_pairs(gaussian.inclusion_score)
    log_integral_exact = _of_pairs(gaussian.log_integral)

    def kl_official(self, mu, lv):
        return vib_loss(Gaussian(mu, lv), form="official")

    def kl_exact(self, mu, lv):
        return vib_loss(Gaussian(mu, lv), form="exact")

    # -- prompts

    def aggregate_prompts(self, means, logvars):
        found = zero_shot.aggregate_prompts(Gaussian(means, logvars))
        return found.weight.T, found.var.T

    def zero_shot_logits(self, image_mean, classifier, variances=None):
        total_var = None if variances is None else variances.sum(0)
        return zero_shot.zero_shot_logits(
            image_mean, classifier.T, total_var, logit_scale=zero_shot.PUBLISHED_LOGIT_SCALE
        )

    def em_weights(self, observations, means, variances, *, var_multi, tol, max_iter, **rule):
        config = bprw_config(multiplier=var_multi, tolerance=tol, max_rounds=max_iter, **rule)
        prompts = Gaussian(means[None], variances.log()[None])
        return fit_observations(prompts, observations[None], config).weights[0].to(means.dtype)

    def bprw(self, means, variances, image_mean, image_logvar, mc_draws, alpha, multiplier, nn, stable_eps, prior):
        config = bprw_config(alpha, multiplier, stable_eps, prior, num_neighbors=nn, num_draws=mc_draws.shape[2])
        classes, images = Gaussian(means, variances.log()), Gaussian(image_mean, image_logvar)
        voters = bprw.nearest_images(classes, images, nn)
        found = bprw.reweight_from_voters(classes, images, voters, config, mc_draws)
        return voters, found.weights, found.classifier.T, found.variances.T

    def filter_prompts(self, method, means, variances, coeff):
        filters = FilterConfig(**{method: tuple(coeff) if isinstance(coeff, list) else (coeff,)})
        *_, found = prompts.unweighted_classifiers(Gaussian(means, variances.log()), filters).values()
        return found.weight.T, found.var.T

    # -- tables of another size

    def resize_visual_pos(self, checkpoint, model_specials, grid):
        return resize_image_positions(checkpoint, model_specials, grid, "official")

    def resize_text_pos(self, checkpoint, new_len, n_cls):
        return resize_text_positions(checkpoint, new_len, n_cls, "official")

    resize_token_table = staticmethod(resize_token_table)

    # -- masking

    def mask_text(self, tokens, draws, n_masked, drop_prob, replace_token, pad_id):
        ids, numbers = tokens.to(torch.int32).numpy(), draws[:n_masked].double().numpy()
        masked = testing.mask_tokens(ids, numbers, n_masked, drop_prob, replace_token, pad_id)
        return torch.from_numpy(masked).to(tokens.dtype)

    def masked_count(self, batch, drop_ratio):
        return int(batch * drop_ratio)

    def kept_patches(self, n_patches, ratio):
        return int(n_patches * ratio)

    # -- training

    def lr(self, kind, step, base_lr, warmup, total_steps, **cooldown):
        config = OptimConfig(lr=base_lr, warmup_steps=warmup, schedule=kind, **cooldown)
        return learning_rate(config, step, total_steps)

    def no_decay(self, name, shape):
        return not decays(name, len(shape))

    def train(self, case, state, batches):
        model = self.load_model(case["config"], state, torch.float64)
        recorded, schedule = case["optimizer"], case["schedule"]
        config = OptimConfig(
            lr=recorded["lr"],
            betas=tuple(recorded["betas"]),
            eps=recorded["eps"],
            weight_decay=recorded["weight_decay"],
            warmup_steps=schedule["warmup"],
            schedule=schedule["kind"],
            clip_norm=case["grad_clip_norm"],
        )
        optimizer = make_optimizer(model, config, ALONE)
        history = []
        for step, batch in enumerate(batches):
            set_learning_rate(optimizer, learning_rate(config, step, schedule["total_steps"]))
            masked = self.mask_text(
                batch["text"],
                batch["text_draws"],
                case["n_masked"],
                case["drop_prob"],
                case["replace_token"],
                case["pad_id"],
            )
            kept = batch["image_perm"][: case["kept_patches"]].sort().values
            output = model(batch["image"], batch["text"][None], masked[None], kept)
            terms = official_terms(output, loss_config(case["hyper"]))
            optimizer.zero_grad()
            torch.stack(list(terms.values())).sum().backward()
            clip_gradients(model.parameters(), config.clip_norm)
            optimizer.step()
            clamp_logit_scale(model)
            history.append(terms)
        return history, model.state_dict()

    # -- evaluation

    def uncertainty_bins(self, values, correct, n_bins):
        found = uncertainty.uncertainty_bins(values, correct, n_bins)
        return torch.tensor(found.accuracy, dtype=torch.float64), found.pearson

    def zero_shot_eval(self, image_mean, image_logvar, labels, classifier, unc_weight, n_bins):
        logits = zero_shot.zero_shot_logits(
            image_mean, classifier.T, unc_weight, logit_scale=zero_shot.PUBLISHED_LOGIT_SCALE
        )
        found = zero_shot.evaluate_zero_shot(logits, labels)
        values = Gaussian(image_mean, image_logvar).total_var
        top1, top5 = (
            uncertainty.uncertainty_bins(values, zero_shot.correct_within(logits, labels, k), n_bins) for k in (1, 5)
        )
        return {"top1": found.top1, "top5": found.top5, "corr_top1": top1.pearson, "corr_top5": top5.pearson}

    def ranking_metrics(self, image, text, scale):
        del scale  # changes no rank
        partner = torch.eye(len(image), dtype=torch.bool)
        metrics = {}
        for name, queries, candidates in (("image_to_text", image, text), ("text_to_image", text, image)):
            found = retrieval.evaluate_retrieval(Gaussian.point(queries), Gaussian.point(candidates), partner, "mean")
            metrics |= {f"{name}_mean_rank": found.mean_rank, f"{name}_median_rank": found.median_rank}
            metrics |= {f"{name}_R@{k}": getattr(found, f"recall_at_{k}") for k in retrieval.RECALL_AT}
        return metrics

    def retrieval_ranks(self, image_mean, image_logvar, text_mean, text_logvar):
        images, texts = Gaussian(image_mean, image_logvar), Gaussian(text_mean, text_logvar)
        to_texts, to_images = (
            retrieval.rank_candidates(retrieval.retrieval_scores(*pair)) for pair in ((images, texts), (texts, images))
        )
        return to_texts, to_images

    def hcaps(
        self,
        image_mean,
        image_logvar,
        text_mean,
        text_logvar,
        caption_ids,
        root,
        n_steps,
        with_uncertainty,
        use_root,
        root_only,
        n_root,
    ):
        config = hierarchy.TraversalConfig(
            root=("both" if use_root else "inclusion") if with_uncertainty else "text",
            num_steps=n_steps,
            root_only=root_only,
            root_weight=n_root,
        )
        images, captions = Gaussian(image_mean, image_logvar), Gaussian(text_mean, text_logvar)
        return hierarchy.traverse(images, captions, caption_ids, root, config)
