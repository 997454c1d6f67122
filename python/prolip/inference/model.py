"""`Model`: an encoder with the similarity that it was trained for, as `prolip.load` returns it.

N/M items, C labels, K templates, D dimensions.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from prolip.calibration.calibration import Calibration
from prolip.calibration.search import SearchCalibration
from prolip.data.config import StoreConfig
from prolip.data.tokenizer import Tokenizer
from prolip.errors import UserError, check, check_at_least
from prolip.gaussian import Gaussian
from prolip.images.preprocess import Preprocess
from prolip.inference.classify import (
    NOTHING,
    Classification,
    Decide,
    Similarity,
    check_decision,
    check_labels,
    classification,
)
from prolip.inference.encoder import Encoder, Images, View, as_captions, count_images, joined
from prolip.metrics.config import DEFAULT_TEMPLATES
from prolip.metrics.prompts import encode_prompts
from prolip.models import ProLIP
from prolip.models.config import Precision

_PATIENCE_S = 2.0
"""Seconds before a progress bar appears."""
PROBES = ["a photo of a cat's “tail”, 3 times!", "seventy words and more " * 20]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network with its preprocessing and tokenizer, and what its Gaussians mean."""

    name: str
    """The source it was opened from; its name in results."""
    encoder: Encoder = field(repr=False)
    """Turns samples of any source into Gaussians."""
    has_variances: bool
    """Whether both towers have them. Without variances every Gaussian is a point, and uncertainty is not measured."""
    keep_ratio: float | None = None
    """Share of patches that training kept of masked images; None if unknown."""
    calibration: Calibration | None = field(default=None, repr=False)
    """What `prolip calibrate` measured for this model; needed for guarantees."""
    search_calibration: SearchCalibration | None = field(default=None, repr=False)
    """What `prolip calibrate search` measured; needed for a search's promises."""

    @property
    def network(self) -> nn.Module:
        """A `ProLIP`, a model of open_clip, or an `AdaptedNetwork` on one of these; in fp32, on `device`."""
        return self.encoder.network

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self.encoder.device

    @property
    def preprocess(self) -> Preprocess:
        """Turns an image of any kind into f32 [3, H, W] on the CPU; its `batch` joins several."""
        return self.encoder.preprocess

    @property
    def tokenize(self) -> Callable[[str | Sequence[str]], Tensor]:
        """Turns captions into ids, i64 [N, L] on the CPU."""
        return self.encoder.tokenize

    @property
    def encode_pixels(self) -> View:
        """From normalised pixels [B, 3, H, W] on `device`, or patches if the model is native, to Gaussians [B, D]:
        means of unit norm, with gradients."""
        return self.encoder.encode_pixels

    @property
    def encode_tokens(self) -> Callable[[Tensor], Gaussian]:
        """From ids [B, L] on `device` to Gaussians [B, D]: means of unit norm, with gradients."""
        return self.encoder.encode_tokens

    def encode_images(
        self,
        images: Images,
        *,
        batch_size: int = 128,
        num_threads: int = 0,
        progress: bool | None = None,
        store: StoreConfig | None = None,
    ) -> Gaussian:
        """Embed images, [N, D] on the CPU in fp32, in order.

        Pixels are the loader's own, which are Pillow's. Images are decoded in threads while the model runs.

        Args:
            images: one image or several: paths, addresses (`s3://`, `gs://`, `az://`), encoded bytes, PIL images,
                arrays u8 [H, W, 3] or [H, W], tensors u8 [3, H, W]; folders, in the order of their paths; shards
                (paths, addresses or patterns); tensors f32 [3, H, W] from `preprocess`. Arrays [N, H, W, 3] and tensors
                [N, 3, H, W] are several.
            batch_size: images per forward pass.
            num_threads: threads that decode; 0 for this process's share of the cores.
            progress: whether to show a progress bar; None for one on a terminal, after two seconds.
            store: how remote shards are read; None for the defaults.

        Raises:
            UserError: there is no image, one is not of a known kind, or there is no such file.
            DataError: an image cannot be decoded, or a shard is damaged.
        """
        check_at_least(1, batch_size=batch_size)
        with _progress_bar("images", count_images(images), progress) as bar:
            encoder = replace(self.encoder, batch_size=batch_size, threads=num_threads, on_progress=bar.update)
            rows = joined(encoder.of_images(images, store))
        check(rows.keys, "images", "there must be at least one")
        return rows.gaussian

    def encode_texts(
        self, texts: str | Sequence[str], *, batch_size: int = 512, progress: bool | None = None
    ) -> Gaussian:
        """Embed captions, [M, D] on the CPU in fp32.

        Args:
            texts: one caption, or several.
            batch_size: captions per forward pass.
            progress: see `encode_images`.

        Raises:
            UserError: there is no caption, one is not a string, or the model's tokenizer is unknown.
        """
        captions = as_captions(texts)
        check_at_least(1, batch_size=batch_size)
        with _progress_bar("captions", len(captions), progress) as bar:
            return replace(self.encoder, on_progress=bar.update).embed_captions(captions, batch_size)

    def classify(
        self,
        images: Images,
        labels: Sequence[str],
        *,
        templates: Sequence[str] | None = None,
        prompt_weights: Tensor | None = None,
        prior: Sequence[float] | Tensor | None = None,
        guarantee: float | None = None,
        per_label: bool = False,
        max_error: float | None = None,
        batch_size: int = 128,
        num_threads: int = 0,
        progress: bool | None = None,
        store: StoreConfig | None = None,
    ) -> Classification:
        """Classify images zero-shot, with the probabilities of the model's own scale and bias.

        With `guarantee` or `max_error` probabilities are calibrated. Both hold for images that are drawn as those of
        the calibration, with the same labels, and not out of distribution.

        Args:
            images, batch_size, num_threads, progress, store: see `encode_images`.
            labels: C labels. With `guarantee` or `max_error` those of the calibration, in its order, where spaces, "_"
                and "-" are the same.
            templates: K prompts with `{}` for the label, such as "a photo of a {}"; each label is their ensemble. None
                for `DEFAULT_TEMPLATES`; with `guarantee` or `max_error`, for those of the calibration.
            prompt_weights: [C, K], such as `reweight_prompts(...).weights` (BPRW); None for even weights.
            prior: C shares or counts of the labels among your images; None if equally frequent. With `guarantee` or
                `max_error` the calibration has its own.
            guarantee: probability that a label set contains the right label, such as 0.95.
            per_label: whether the guarantee must hold for each label's images, as far as the calibration allows
                (`prolip.calibration.class_thresholds`).
            max_error: maximum share of wrong answers, such as 0.05, in 19 of 20 calibrations. Answers that are too
                uncertain become None.

        Raises:
            UserError: as for `encode_images` and `encode_texts`; or a template, label, weight or prior is invalid, or
                the model was not calibrated with these labels and templates.
            DataError: as for `encode_images`.
        """
        classifier = self.classifier(
            labels, Decide(guarantee, per_label, max_error), templates, prompt_weights, prior, progress
        )
        return classifier(
            self.encode_images(images, batch_size=batch_size, num_threads=num_threads, progress=progress, store=store)
        )

    def classifier(
        self,
        labels: Sequence[str],
        decide: Decide = NOTHING,
        templates: Sequence[str] | None = None,
        prompt_weights: Tensor | None = None,
        prior: Sequence[float] | Tensor | None = None,
        progress: bool | None = None,
    ) -> Callable[[Gaussian], Classification]:
        """A function that classifies embedded images, [N, D], batch after batch; see `classify`."""
        check_labels(labels)
        known = labels
        if decide.asked:
            known, templates = check_decision(decide, self.calibration, labels, templates, prompt_weights, prior)
        templates = DEFAULT_TEMPLATES if templates is None else templates
        return partial(
            classification,
            prompts=encode_prompts(templates, known, partial(self.encode_texts, progress=progress)),
            labels=labels,
            weights=prompt_weights,
            similarity=self.similarity,
            prior=prior,
            decide=decide,
            calibration=self.calibration,
        )

    @property
    def logit_scale(self) -> float:
        """Learned factor of the similarity, above 0."""
        network: Any = self.network
        return float(network.logit_scale.detach().exp())

    @property
    def logit_bias(self) -> float | None:
        """Learned bias of the similarity; None without one, as in CLIP."""
        bias = getattr(self.network, "logit_bias", None)
        return None if bias is None else float(bias.detach())

    @property
    def similarity(self) -> Similarity:
        """Scale and bias of the similarity."""
        return Similarity(self.logit_scale, self.logit_bias)

    @property
    def prolip(self) -> ProLIP | None:
        """The network if it is a ProLIP model, else None."""
        return self.network if isinstance(self.network, ProLIP) else None

    @cached_property
    def embed_dim(self) -> int:
        """D."""
        if self.prolip is not None:
            return self.prolip.config.embed_dim
        return self.encode_images(np.zeros((8, 8), np.uint8), progress=False).mean.shape[1]

    def require_prolip(self) -> ProLIP:
        """The network of a ProLIP model.

        Raises:
            UserError: it is of open_clip, or adapted.
        """
        if not isinstance(self.network, ProLIP):
            raise UserError(self.name, "must be a ProLIP network", "one of open_clip or an adapted one")
        return self.network

    def fingerprint(self) -> str:
        """Digest of weights, architecture, tokenizer, preprocessing and precision: 32 hexadecimal digits.

        Models with the same fingerprint have the same results.
        """
        digest = hashlib.sha256()
        shape = self.network.config if isinstance(self.network, ProLIP) else self.network
        given = self.preprocess
        length = [given.image_seq_len] if given.is_native else []
        pixels = (given.sides, given.mean, given.std, *length)
        for part in (shape, pixels, given.resize, given.filter, self.has_variances):
            digest.update(repr(part).encode())
        digest.update(self.encoder.precision.encode())
        digest.update(self.tokenize(PROBES).contiguous().numpy().tobytes())
        digest.update(weights_digest(self.network).encode())
        return digest.hexdigest()[:32]


def weights_digest(network: nn.Module) -> str:
    """Digest of a network's tensors: 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def untrained(model: Model) -> Model:
    """A ProLIP model of the same architecture with random weights, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ProLIP(model.require_prolip().config)
    before = model.encoder
    return of_prolip(
        network,
        before.require_tokenizer(),
        "untrained",
        before.device,
        keep_ratio=model.keep_ratio,
        precision=before.precision,
    )


def of_prolip(
    network: ProLIP,
    tokenizer: Tokenizer | UserError,
    name: str,
    device: torch.device,
    *,
    keep_ratio: float | None = None,
    precision: Precision = "fp32",
) -> Model:
    """The model of a ProLIP network, which is moved to `device`.

    Args:
        network: the network.
        tokenizer: its own; or the error to raise as soon as captions are encoded.
        name: in results.
        device: where it runs.
        keep_ratio: share of patches that training kept of masked images.
        precision: of the towers.

    Raises:
        UserError: as for `Encoder.of_prolip`.
    """
    return Model(
        name=name,
        encoder=Encoder.of_prolip(network, tokenizer, device, precision),
        has_variances=network.config.vision.embed_unc and network.config.text.embed_unc,
        keep_ratio=keep_ratio,
    )


def _progress_bar(what: str, total: int | None, progress: bool | None) -> tqdm[Any]:
    return tqdm(
        total=total,
        desc=what,
        unit=what.removesuffix("s"),
        file=sys.stderr,
        disable=None if progress is None else not progress,
        delay=_PATIENCE_S if progress is None else 0.0,
    )
