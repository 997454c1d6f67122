"""Run a model on images and captions, and collect the Gaussians on the CPU.

N items, M captions, B batch, H/W pixels, L tokens, C caption slots, D dimensions.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.data import BatchLoader, Members, StoreConfig, without_secrets
from prolip.data.device import device_batches
from prolip.data.tokenizer import Tokenizer
from prolip.errors import UserError
from prolip.gaussian import Gaussian, concatenate
from prolip.image_tensors import Patches
from prolip.inference.forward import encode_in_batches, evaluating, on_cpu
from prolip.inference.image_batches import image_batches
from prolip.inference.model import Model
from prolip.models import ProLIP


class Embedded(NamedTuple):
    """Embedded images of a loader, in its order."""

    gaussian: Gaussian
    """[N, D] on the CPU, float32."""
    keys: list[str]
    members: Members


class Paired(NamedTuple):
    """Embedded images of a loader and their captions, in its order."""

    image: Gaussian
    """[N, D] on the CPU, float32."""
    text: Gaussian
    """[C, N, D] on the CPU, float32."""
    token_ids: Tensor
    """i64 [C, N, L] on the CPU."""
    keys: list[str]
    members: Members


# ---- Images of a loader ---------------------------------------------------------------------------------------------


def embed_pairs(model: ProLIP, loader: BatchLoader, device: torch.device) -> Paired:
    """Embed all images of a loader and their captions, if any; the model's training mode is restored afterwards."""
    slots, length = len(loader.config.captions), loader.config.tokenizer.context_length
    no_image, no_text = torch.zeros(0, model.config.embed_dim), torch.zeros(slots, 0, model.config.embed_dim)
    images, texts = [Gaussian(no_image, no_image)], [Gaussian(no_text, no_text)]
    ids = [torch.zeros(slots, 0, length, dtype=torch.int64)]
    keys: list[str] = []
    members: list[Members] = []
    with evaluating(model):
        for batch in device_batches(loader, device):
            images.append(on_cpu(model.encode_image(batch.images)))
            if slots:
                flat = on_cpu(model.encode_text(batch.token_ids.flatten(0, 1)))
                texts.append(flat.unflatten(slots, len(batch.keys)))
                ids.append(batch.token_ids.cpu())
            keys.extend(batch.keys)
            members.append(batch.members)
    joined = _joined(members, loader.config.keep_members)
    return Paired(concatenate(images), concatenate(texts, -2), torch.cat(ids, 1), keys, joined)


# ---- Images of shards, for any evaluated model ----------------------------------------------------------------------


def embed_shards(
    model: Model,
    shards: Sequence[str],
    *,
    batch_size: int = 128,
    keep: Sequence[str] = (),
    store: StoreConfig | None = None,
    selection: str | None = None,
    on_progress: Callable[[int], object] | None = None,
) -> Embedded:
    """Embed all images of some shards, in order, with the model's own preprocessing. Unreadable images are left out.

    Args:
        shards: paths, addresses or patterns, or one of them.
        selection: path of a selection of their samples.

    Raises:
        UserError: there is no image.
        DataError: a shard is not an archive, or more than one image in a hundred is unreadable.
    """
    found = embed_views(
        model,
        [shards] if isinstance(shards, str) else shards,
        {"whole": model.encode_pixels},
        batch_size=batch_size,
        keep=keep,
        store=store,
        selection=selection,
        on_progress=on_progress,
    )
    return found["whole"]


def embed_views(
    model: Model,
    shards: Sequence[str],
    views: Mapping[str, Callable[[Tensor | Patches], Gaussian]],
    *,
    batch_size: int = 128,
    keep: Sequence[str] = (),
    store: StoreConfig | None = None,
    selection: str | None = None,
    on_progress: Callable[[int], object] | None = None,
) -> dict[str, Embedded]:
    """As `embed_shards`, in several ways at once. Each view maps images (`ImageBatch`) to Gaussians [B, D]."""
    parts: dict[str, list[Gaussian]] = {name: [] for name in views}
    keys: list[str] = []
    members: list[Members] = []
    with model.running():
        for batch in image_batches(
            model.preprocess, shards, model.device, batch_size, keep=keep, store=store, selection=selection
        ):
            for name, view in views.items():
                parts[name].append(on_cpu(view(batch.images)))
            keys.extend(batch.keys)
            members.append(batch.members)
            if on_progress is not None:
                on_progress(len(batch.keys))
    if not keys:
        raise UserError("shards", "must have an image", ", ".join(map(without_secrets, shards)))
    joined = _joined(members, keep)
    return {name: Embedded(concatenate(some), keys, joined) for name, some in parts.items()}


# ---- Tensors and captions -------------------------------------------------------------------------------------------


def embed_texts(
    model: ProLIP,
    tokenizer: Tokenizer,
    captions: Sequence[str],
    device: torch.device,
    batch_size: int = 512,
) -> Gaussian:
    """Embed captions, [M, D] on the CPU, padded to the full context as in training; the training mode is restored."""

    def encode(some: Sequence[str]) -> Gaussian:
        return model.encode_text(torch.from_numpy(tokenizer.encode(list(some))).long().to(device))

    with evaluating(model):
        return encode_in_batches(encode, captions, batch_size, None)


def embed_captions(
    model: Model,
    captions: Sequence[str],
    batch_size: int = 512,
    *,
    on_progress: Callable[[int], object] | None = None,
) -> Gaussian:
    """As `embed_texts`, for any evaluated model and in its precision."""

    with model.running():
        return encode_in_batches(model.encode_captions, captions, batch_size, on_progress)


def _joined(members: Sequence[Members], extensions: Sequence[str]) -> Members:
    return {name: [data for some in members for data in some[name]] for name in extensions}
