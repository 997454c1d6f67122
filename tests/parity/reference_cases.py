"""What is compared with recorded numbers of the released code: one function per case, from an adapter to comparisons.

docs/specification.md defines every quantity.
"""

import torch
from tests.parity.recorded import double, near, same

F32, F64 = torch.float32, torch.float64
TOWERS = ("image", "text", "masked_image", "masked_text")
TYPES = (("f64", F64, 1e-10, 1e-9), ("f32", F32, 3e-5, 3e-5))
"""Name, type, absolute and relative bound of a model's outputs."""
TRAVERSALS = {
    "det_root": (50, False, True, False, 1),
    "det_root_only": (50, False, True, True, 1),
    "det_steps20": (20, False, True, False, 1),
    "unc_noroot": (50, True, False, False, 1),
    "unc_withroot": (50, True, True, False, 1),
    "unc_withroot_only": (50, True, True, True, 1),
    "unc_nroot3": (50, True, True, False, 3),
}
"""Steps, with uncertainty, with the text root, root only, weight of the including caption."""


# ---------------------------------------------------------------------------------------------------------------------
# Cases by file


def model_outputs(recorded, kind, adapter):
    """Raw and normalised means and log variances of whole and of masked inputs."""
    _, dtype, absolute, relative = next(row for row in TYPES if row[0] == kind)
    numbers, bounds = recorded.numbers, (absolute, relative)
    model = adapter.load_model(
        recorded.settings["config"], {k: v.to(dtype) for k, v in recorded.state().items()}, dtype
    )
    inputs = {"image": numbers["input.image"].to(dtype), "text": numbers["input.text"]}
    for tower, encode in (("image", adapter.encode_image), ("text", adapter.encode_text)):
        for normalize, key in ((False, "mean_raw"), (True, "mean_norm")):
            mean, log_var = encode(model, inputs[tower], normalize=normalize)
            yield from recorded.near(f"{tower}.{key}", mean, f"out.{kind}.{tower}.{key}", *bounds)
            if f"out.{kind}.{tower}.logvar" in numbers:
                yield from recorded.near(f"{tower}.logvar", log_var, f"out.{kind}.{tower}.logvar", *bounds)
            else:
                yield same(f"{tower}.without_logvar", log_var is None, True)
    for ratio in recorded.settings.get("masks", ()):
        kept, place = numbers[f"mask.{ratio}.kept"], f"out.{kind}.masked.{ratio}.image"
        for normalize, key in ((False, "mean_raw"), (True, "mean_norm")):
            mean, log_var = adapter.encode_image(model, inputs["image"], keep=kept, normalize=normalize)
            yield from recorded.near(f"masked{ratio}.{key}", mean, f"{place}.{key}", *bounds)
            yield from recorded.near(f"masked{ratio}.logvar", log_var, f"{place}.logvar", *bounds)
    scale, bias = adapter.logit_scale_and_bias(model)
    yield from recorded.near("logit_scale", scale, f"out.{kind}.logit_scale_exp", *bounds)
    yield from recorded.near("logit_bias", bias, f"out.{kind}.logit_bias", 1e-6)


def model_gradients(recorded, adapter):
    """Norm, sum and largest entry of every parameter's gradient of a fixed combination of the outputs."""
    numbers, settings = recorded.numbers, recorded.settings
    model = adapter.load_model(settings["config"], {k: v.to(F64) for k, v in recorded.state().items()}, F64)
    outputs = {
        "image": adapter.encode_image(model, numbers["input.image"].to(F64), normalize=True),
        "text": adapter.encode_text(model, numbers["input.text"], normalize=True),
    }
    score = torch.zeros((), dtype=F64)
    for tower, (mean, log_var) in outputs.items():
        score = score + (numbers[f"cotangent.{tower}.mean_norm"] * mean).sum()
        if log_var is not None:
            score = score + (numbers[f"cotangent.{tower}.logvar"] * log_var).sum()
    yield near("scalar", score, settings["scalar_f64"], 1e-8, 1e-9)
    score.backward()
    parameters = adapter.named_parameters(model)
    for name, mark in settings["gradient_fingerprint_f64"].items():
        gradient = parameters[name].grad
        if mark is None:
            yield same(f"{name}.unused", gradient is None or not gradient.any(), True)
            continue
        gradient = torch.zeros_like(parameters[name]) if gradient is None else gradient
        measured = torch.stack([gradient.norm(), gradient.sum(), gradient.abs().max()])
        expected = [mark["norm"], mark["sum"], mark["maxabs"]]
        yield near(name, measured, expected, 1e-8 * max(mark["norm"], 1e-6) + 1e-10, 1e-7)


def loss_inputs(recorded, prefix, towers):
    names = [f"{tower}_{part}" for tower in towers for part in ("mean", "logvar")]
    return {name: recorded.numbers[f"{prefix}.{name}"].clone() for name in names}


def scalars(values):
    return {key: torch.tensor(value, dtype=F64, requires_grad=True) for key, value in values.items()}


def loss_terms(recorded, name, adapter):
    """Every weighted term, their sum and its gradients, in one process."""
    settings, case = recorded.settings, recorded.settings["cases"][name]
    inputs = loss_inputs(recorded, "in", TOWERS if case["uses_masked"] else TOWERS[:2])
    # The guards are reached by moving the recorded inputs to where the released code drops a term.
    if name == "guard_vib":
        inputs["image_logvar"] += 36
        inputs["text_logvar"] += 36
    if name == "guard_inclusion":
        inputs["text_logvar"] -= 150
    for value in inputs.values():
        value.requires_grad_()
    factors = scalars({key: settings[key] for key in ("logit_scale", "logit_bias")} | (case["extra"] or {}))
    terms = adapter.loss_terms(inputs, hyper=case["hyper"], **factors)
    yield same("term_names", sorted(terms), sorted(case["terms"]))
    for key, value in case["terms"].items():
        yield near(key, terms[key], value, 1e-12, 1e-9)
    total = torch.stack(list(terms.values())).sum()
    yield near("total", total, case["total"], 1e-12, 1e-9)
    total.backward()
    for key, leaf in (inputs | factors).items():
        expected = recorded.numbers.get(f"grad.{name}.{key}")
        if expected is not None:
            gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            yield near(f"grad.{key}", gradient, expected, 1e-10 * float(expected.abs().max()) + 1e-14, 1e-7)


def loss_of_all_ranks(recorded, world, adapter):
    """The loss of one process on the batches of all ranks, their masked rows first, and its gradients."""
    settings, batch, masked = recorded.settings, recorded.settings["local_batch"], recorded.settings["n_masked"]
    leaves = {key: value.requires_grad_() for key, value in loss_inputs(recorded, f"w{world}.in", TOWERS).items()}
    places = torch.arange(int(world) * batch).view(int(world), batch)
    order = torch.cat([places[:, :masked].flatten(), places[:, masked:].flatten()])
    flat = {key: value.flatten(0, 1) for key, value in leaves.items()}
    flat = {key: value if key.startswith("masked") else value[order] for key, value in flat.items()}
    factors = scalars({key: settings[key] for key in ("logit_scale", "logit_bias")})
    terms = adapter.loss_terms(flat, hyper=settings["hyper"], **factors)
    for key, value in settings["worlds"][world]["single_process"]["terms"].items():
        yield near(key, terms[key], value, 1e-12, 1e-9)
    torch.stack(list(terms.values())).sum().backward()
    for key, leaf in leaves.items():
        yield from recorded.near(f"grad.{key}", leaf.grad, f"w{world}.single_grad.{key}", 1e-12, 1e-7)


def loss_of_each_rank(recorded, world, adapter):
    """The released loss on each rank, with the released exchange of texts; on two ranks that raises."""
    settings, official = recorded.settings, recorded.settings["worlds"][world]["official"]
    if "errors" in official:
        raise NotImplementedError("the released code raises, so nothing is recorded")
    inputs = loss_inputs(recorded, f"w{world}.in", TOWERS)
    factors = {key: torch.tensor(settings[key], dtype=F64) for key in ("logit_scale", "logit_bias")}
    terms = adapter.distributed_terms_official(inputs, hyper=settings["hyper"], **factors)
    for rank, expected in enumerate(official["terms_per_rank"]):
        for key, value in expected.items():
            yield near(f"rank{rank}.{key}", terms[rank][key], value, 1e-12, 1e-9)


def pair_distances(recorded, adapter):
    """Logits and sampled distances of all pairs; divergences from the standard normal."""
    a, log_a, b, log_b = (recorded.numbers[f"in.{name}"] for name in ("mu1", "logvar1", "mu2", "logvar2"))
    factors = recorded.settings["logit_scale"], recorded.settings["logit_bias"]
    logits = adapter.csd_logits(a, log_a, b, log_b, *factors)
    yield from recorded.near("csd_logits", logits, "official.csd_logits", 1e-11, 1e-9)
    yield from recorded.near("csd", adapter.csd(a, log_a, b, log_b), "exact.csd", 1e-11, 1e-9)
    for side, inputs in (("1", (a, log_a)), ("2", (b, log_b))):
        for form, divergence in (("official", adapter.kl_official), ("exact", adapter.kl_exact)):
            value = double(divergence(*inputs)).reshape(1)
            yield from recorded.near(f"kl_{form}.{side}", value, f"{form}.kl_mean.{side}", 1e-12, 1e-10)


def pair_inclusion(recorded, adapter):
    """Inclusion of pairs and of all in all, exact and official."""
    settings, numbers = recorded.settings, recorded.numbers
    all_pairs = tuple(numbers[f"in.{name}"] for name in ("mu1", "logvar1", "mu2", "logvar2"))
    pair = tuple(value[: settings["K_elementwise"]] for value in all_pairs)
    swapped, all_swapped = pair[2:] + pair[:2], all_pairs[2:] + all_pairs[:2]
    for eps in settings["eps_elementwise"]:
        place = f"official.inclusion_test.eps{eps}"
        if f"{place}.1in2" not in numbers:
            continue
        # Numbers of size delta^2 / variance cancel at eps = 0: the bound grows with them.
        bound = 1e-12 * float(numbers[f"{place}.1in2"].abs().max()) + 1e-10
        for side, inputs in (("1in2", pair), ("2in1", swapped)):
            test = adapter.inclusion_test_official(*inputs, eps)
            yield from recorded.near(f"test.eps{eps}.{side}", test, f"{place}.{side}", bound, 1e-9)
        score = adapter.inclusion_logit_official(*pair, eps)
        yield from recorded.near(f"logit.eps{eps}", score, f"official.inclusion_logit.eps{eps}", 10 * bound, 1e-9)
    for eps in settings["eps_batchwise"]:
        for end, inputs in (("", all_pairs), (".2in1", all_swapped)):
            matrix = adapter.inclusion_batchwise_official(*inputs, eps)
            place = f"official.inclusion_batchwise.eps{eps}{end}"
            yield from recorded.near(f"matrix.eps{eps}{end}", matrix, place, 1e-8, 1e-9)
    yield from recorded.near("H", adapter.inclusion_exact(*pair), "exact.inclusion_H", 1e-10, 1e-9)
    yield from recorded.near("integral", adapter.log_integral_exact(*pair), "exact.log_int_p1sq_p2", 1e-10, 1e-9)
    broadcast = (value[:, None] if place < 2 else value[None] for place, value in enumerate(all_pairs))
    matrix = adapter.inclusion_exact(*broadcast).sum(-1)
    yield from recorded.near("H_matrix", matrix, "exact.inclusion_H_batchwise", 1e-9, 1e-9)


def em_weights(recorded, name, adapter):
    """Mixing weights after 1, after 5 and after the last round, and the classifier that they make."""
    settings, numbers, case = recorded.settings, recorded.numbers, recorded.settings["em_cases"][name]
    means, log_vars, seen = (numbers[f"em.in.{key}"] for key in ("prompt_means", "prompt_logvar", "observations"))
    variances = log_vars.exp()
    rule = {key: case[key] for key in ("alpha", "var_multi", "stable_eps", "prior")}
    # The released code starts an even prior from a float32 vector: 1e-7 early, nothing at convergence.
    rounds = (("weights_after_1", 1, 2e-7), ("weights_after_5", 5, 2e-7), ("weights", settings["max_iter"], 1e-8))
    for key, most, bound in rounds:
        rows = [
            adapter.em_weights(seen[i], means[i], variances[i], tol=settings["tol"], max_iter=most, **rule)
            for i in range(settings["C"])
        ]
        weights = torch.stack(rows).to(F64)
        yield from recorded.near(key, weights, f"em.{name}.{key}", bound, 1e-6)
    classifier = torch.einsum("ck,ckd->dc", weights, means)
    yield from recorded.near("classifier", classifier, f"em.{name}.classifier", 1e-7)
    spread = torch.einsum("ck,ckd->dc", weights.square(), variances)
    yield from recorded.near("variances", spread, f"em.{name}.variances", 1e-8, 1e-6)


def whole_bprw(recorded, name, adapter):
    """From prompts and images to re-weighted classifiers, of the classes whose draws are recorded."""
    numbers, case = recorded.numbers, recorded.settings[name]
    rule = {key: case[key] for key in ("alpha", "multiplier", "nn", "stable_eps", "prior")}
    draws = numbers[f"{name}.mc_draws"].to(F64)
    few = slice(0, len(draws))
    means, variances = numbers["em.in.prompt_means"][few], numbers["em.in.prompt_logvar"][few].exp()
    images = numbers["full.image_mean"], numbers["full.image_logvar"]
    voters, weights, classifier, spread = adapter.bprw(means, variances, *images, draws, **rule)
    yield same("neighbours", voters, numbers[f"{name}.neighbours"][few])
    # Released standard deviations pass through float32, which moves results by 4e-9.
    yield near("weights", weights, numbers[f"{name}.weights"][few], 1e-7, 1e-6)
    yield near("classifier", classifier, numbers[f"{name}.classifier"][:, few], 1e-7)
    yield near("variances", spread, numbers[f"{name}.variances"][:, few], 1e-8, 1e-6)


def prompt_filter(recorded, name, adapter):
    """The classifier of the prompts that a rule keeps."""
    numbers, case = recorded.numbers, recorded.settings["filters"][name]
    means = numbers.get("filter.in.means", numbers["em.in.prompt_means"])
    classifier, variances = adapter.filter_prompts(case["method"], means, numbers["filter.in.vars"], case["coeff"])
    yield from recorded.near("classifier", classifier, f"filter.{name}.classifier", 1e-11)
    yield from recorded.near("variances", variances, f"filter.{name}.variances", 1e-12)


def average_prompts(recorded, adapter):
    """The even average of all prompts, and the logits of images with it."""
    numbers = recorded.numbers
    classifier, variances = adapter.aggregate_prompts(numbers["em.in.prompt_means"], numbers["em.in.prompt_logvar"])
    yield from recorded.near("classifier", classifier, "zeroshot.agg.classifier", 1e-11)
    yield from recorded.near("variances", variances, "zeroshot.agg.variances", 1e-12)
    images, weight, spread = (
        numbers[key] for key in ("full.image_mean", "zeroshot.agg.classifier", "zeroshot.agg.variances")
    )
    plain, with_var = adapter.zero_shot_logits(images, weight), adapter.zero_shot_logits(images, weight, spread)
    yield from recorded.near("logits", plain, "zeroshot.logits_plain", 1e-9)
    yield from recorded.near("logits_with_var", with_var, "zeroshot.logits_unc", 1e-9)


def resized_table(recorded, kind, name, adapter):
    """A table of positions or tokens for a model of another size."""
    place, numbers = f"{kind}.{name}", recorded.numbers
    table = numbers[f"{place}.in_checkpoint"]
    if kind == "token":
        got, bound = adapter.resize_token_table(table, numbers[f"{place}.in_model"]), 0.0
    elif kind == "text":
        case, bound = recorded.settings["text"][name], 1e-10
        got = adapter.resize_text_pos(table.to(F64), case["new_len"], case["n_cls"])
    else:
        grid, bound = tuple(recorded.settings["visual"][name]["grid"]), 1e-10
        got = adapter.resize_visual_pos(table.to(F64), numbers[f"{place}.in_model_specials"].to(F64), grid)
    yield from recorded.near("table", got, f"{place}.out", bound)


def masked_tokens(recorded, name, adapter):
    """How many rows are masked, and their tokens."""
    case, numbers = recorded.settings["cases"][name], recorded.numbers
    yield same("count", adapter.masked_count(case["batch"], case["drop_ratio"]), case["n_masked"])
    rule = case["n_masked"], case["drop_prob"], case["replace_token"], case["pad_id"]
    masked = adapter.mask_text(numbers[f"{name}.tokens"], numbers[f"{name}.draws"], *rule)
    yield same("tokens", masked, numbers[f"{name}.masked_tokens"])


def kept_patches(recorded, adapter):
    """How many patches a masked view keeps."""
    for patches, ratio, kept in recorded.settings["keep_count"]:
        yield same(f"{patches}_{ratio}", adapter.kept_patches(patches, ratio), kept)


def training_steps(recorded, adapter):
    """The loss of each step, and the parameters after the last."""
    settings, numbers = recorded.settings, recorded.numbers
    batches = []
    for step in range(settings["steps"]):
        batch = {name: numbers[f"step{step}.{name}"] for name in ("image", "text", "text_draws", "image_perm")}
        batches.append(batch | {"image": batch["image"].to(F64)})
    history, final = adapter.train(settings, {k: v.to(F64) for k, v in recorded.state().items()}, batches)
    yield same("steps", len(history), settings["steps"])
    for step, expected in enumerate(settings["loss_terms"]):
        yield same(f"step{step}.term_names", sorted(history[step]), sorted(expected))
        for name, value in expected.items():
            yield near(f"step{step}.{name}", history[step][name], value, 1e-10, 1e-7)
    for name, value in settings.get("final_norms_f64", {}).items():
        yield near(f"final_norm.{name}", double(final[name]).norm(), value, 1e-8, 1e-7)
        yield from recorded.near(f"final.{name}", final[name], f"final.{name}", 1e-6, 1e-6)


def uncertainty_bins(recorded, name, adapter):
    """Accuracy by uncertainty, and its correlation with the bin."""
    case, numbers = recorded.settings["unc_bins"][name], recorded.numbers
    for top in ("top1", "top5"):
        correct = numbers[f"unc.{name}.correct_{top}"].to(F64)
        accuracy, correlation = adapter.uncertainty_bins(numbers[f"unc.{name}.uncertainty"], correct, case["n_bins"])
        yield from recorded.near(f"bins_{top}", accuracy, f"unc.{name}.bin_acc_{top}", 1e-12)
        yield near(f"correlation_{top}", correlation, case[f"corr_{top}"], 1e-10)


def zero_shot(recorded, kind, adapter):
    """Accuracies by means ("plain") or with class variances ("unc")."""
    inputs = [recorded.numbers[f"zeroshot.{key}"] for key in ("image_mean", "image_logvar", "labels", "classifier")]
    spread = recorded.numbers["zeroshot.unc_weight"] if kind == "unc" else None
    expected = recorded.settings[f"zeroshot_{kind}"]
    found = adapter.zero_shot_eval(*inputs, spread, expected["n_bins"])
    for key in ("top1", "top5", "corr_top1", "corr_top5"):
        yield near(key, found[key], expected[key], 1e-10)


def retrieval(recorded, adapter):
    """Ranks of partners, and the order of all candidates by the scores with uncertainty."""
    numbers = recorded.numbers
    found = adapter.ranking_metrics(numbers["rank.image"], numbers["rank.text"], 50.0)
    for key, value in recorded.settings["clip_metrics"].items():
        yield near(key, found[key], value, 1e-10)
    names = ("image_mean", "image_logvar", "text_mean", "text_logvar")
    to_texts, to_images = adapter.retrieval_ranks(*(numbers[f"retrieval.{name}"] for name in names))
    yield same("image_to_text", to_texts, numbers["retrieval.i2t_rank"])
    yield same("text_to_image", to_images, numbers["retrieval.t2i_rank"])


def hierarcaps(recorded, name, adapter):
    """Precision and recall of a walk, of each image and on average in percent."""
    numbers, expected = recorded.numbers, recorded.settings["runs"][name]
    inputs = [numbers[key].to(F64) for key in ("image_mean", "image_logvar", "text_mean", "text_logvar")]
    root = numbers["root_mean"].to(F64)
    precision, recall, any_found = map(double, adapter.hcaps(*inputs, numbers["caption_ids"], root, *TRAVERSALS[name]))
    for key, value in (("precision", precision), ("recall", recall), ("any_recall", any_found)):
        yield near(key, 100 * value.mean(), expected[key], 1e-6)
    yield from recorded.near("precision_per_image", precision, f"{name}.precision_per_image", 1e-6)
    yield from recorded.near("recall_per_image", recall, f"{name}.recall_per_image", 1e-6)


def learning_rates(recorded, index, adapter):
    """The learning rate of some steps."""
    case = recorded.settings["schedules"][index]
    rule = {key: value for key, value in case.items() if key.startswith("cooldown")}
    fixed = case["base_lr"], case["warmup"], case["total_steps"]
    rates = [adapter.lr(case["kind"], step, *fixed, **rule) for step in case["steps"]]
    yield near(case["kind"], rates, case["lr"], 1e-18, 1e-12)


def parameters_without_decay(recorded, name, adapter):
    """Which parameters do not decay."""
    group = recorded.settings["decay_groups"][name]
    found = [key for key, shape in group["shapes"].items() if adapter.no_decay(key, shape)]
    yield same("names", sorted(found), sorted(group["no_decay"]))


def checkpoint_layout(recorded, adapter):
    """Names, order and shapes of a model's tensors."""
    shapes, config = recorded.settings["tensors_shapes"], recorded.settings["config"]
    model = adapter.load_model(config, {name: torch.zeros(shape) for name, shape in shapes.items()}, F32)
    found = {name: list(value.shape) for name, value in adapter.named_parameters(model).items()}
    yield same("shapes", found, shapes)
    yield same("order", list(found), recorded.settings["state_dict_order"])
