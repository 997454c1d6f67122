"""Export adapted models (`prolip adapt`): the adapter's two files with a card, or both towers as ONNX files."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from prolip.errors import UserError
from prolip.files import atomic_file, atomic_files, write_atomic
from prolip.gaussian import Gaussian
from prolip.interop.config import ExportOptions
from prolip.models import ProLIP
from prolip.models.adapter import ADAPTER_FILE, ADAPTER_WEIGHTS, Adapter, Frozen
from prolip.models.hub import CARD_FILE, ModelCard
from prolip.models.open_clip import start_from
from prolip.models.prolip import normalised
from prolip.pretrained.adapted import AdaptedNetwork, find_frozen
from prolip.pretrained.model import Model
from prolip.pretrained.open import load
from prolip.pretrained.tokenizer_choice import choose_tokenizer

ADAPTED_FILES = (ADAPTER_FILE, ADAPTER_WEIGHTS, CARD_FILE)


class AdaptedTower(nn.Module):
    """A tower that ends in a head of an adapter."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, inputs: Tensor) -> Gaussian:
        """Return the Gaussians [B, D] of pixels or token ids."""
        found: Gaussian = self.head(normalised(self.encoder(inputs)).mean)
        return found


def with_options(card: ModelCard, options: ExportOptions) -> ModelCard:
    """Return a model card with what the user says instead."""
    return dataclasses.replace(
        card,
        name=options.name or card.name,
        data=options.trained_on or card.data,
        licence=options.licence or card.licence,
    )


def export_adapted(
    options: ExportOptions, adapter: Adapter, frozen: Frozen, source: Path, folder: Path
) -> Sequence[str]:
    """Write an adapted model, whose adapter is in the folder `source`, to `folder`; return the names of its files.

    Raises:
        UserError: the format is not supported, or the frozen model cannot be found or converted.
    """
    if options.format not in {"prolip", "onnx"}:
        raise UserError(f"format is {options.format}: an adapted model can be written as prolip or onnx")
    start = f"`{frozen.source}`, frozen, with heads that `prolip adapt` learned ({adapter.config.method})"
    card = with_options(ModelCard(start=start), options)
    if options.format == "onnx":
        from prolip.interop.onnx import save_onnx

        opened = load(options.checkpoint, tokenizer=options.tokenizer, device="cpu")
        network, card = with_heads(opened), dataclasses.replace(card, settings={"Use": _use(opened)})
        if opened.tokenizer is not None:
            tokenizer = opened.tokenizer.config
        else:
            tokenizer = choose_tokenizer(find_frozen(frozen, source), options.tokenizer, network.config.text)
        with atomic_files(folder, sum(parameter.nbytes for parameter in network.parameters())) as temporary:
            return save_onnx(network, tokenizer, temporary, card, options.onnx)
    for name in (ADAPTER_WEIGHTS, ADAPTER_FILE):
        if folder.absolute() != source.absolute():
            with atomic_file(folder / name, (source / name).stat().st_size) as temporary:
                shutil.copyfile(source / name, temporary)
    write_atomic(folder / CARD_FILE, _card(card, frozen))
    return ADAPTED_FILES


def _use(model: Model) -> dict[str, str]:
    """Return rows of the card that say what the towers of other models need not say."""
    images = model.preprocess
    rows = {"images": f"resized as `{images.resize_mode}` ({images.interpolation}) before the tower"}
    if model.epistemic:
        rows["variances"] = "what the model has not learned; they are no distance: compare means, not CSD"
    return rows


def with_heads(model: Model) -> ProLIP:
    """Return an adapted model on the CPU as one ProLIP network, whose towers end in the adapter's heads.

    Raises:
        UserError: the frozen model is of open_clip, and cannot be converted.
    """
    adapted = model.network
    assert isinstance(adapted, AdaptedNetwork)
    network = adapted.frozen if isinstance(adapted.frozen, ProLIP) else start_from(adapted.frozen, uncertainty=False)
    visual: nn.Module = AdaptedTower(network.visual, adapted.adapter.image)
    text: nn.Module = AdaptedTower(network.text, adapted.adapter.text)
    network.visual, network.text = visual, text  # type: ignore[assignment]
    network.logit_scale = torch.nn.Parameter(adapted.logit_scale.detach().clone())
    bias = adapted.logit_bias
    network.logit_bias = None if bias is None else torch.nn.Parameter(bias.detach().clone())
    return network.eval()


def _card(card: ModelCard, frozen: Frozen) -> str:
    """Return the card of an adapter: its frozen model, and how to load it."""
    return "\n".join(
        [
            f"---\nlicense: {card.licence}\nlibrary_name: {card.library}",
            "pipeline_tag: zero-shot-image-classification",
            "tags:\n- prolip\n- probabilistic-embeddings\n- vision-language\n---\n",
            f"# {card.name}\n",
            f"Uncertainty for the frozen model `{frozen.source}`: heads that turn its embeddings into Gaussians. The",
            "frozen model itself is not in this folder; it is opened from its own source.\n",
            f"```python\n{card.usage}```\n",
            f"- started from: {card.start}\n- trained on: {card.data}\n- licence: {card.licence}\n",
        ]
    )
