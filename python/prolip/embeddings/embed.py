"""The only file of the evaluation that runs a model: pictures and captions in, Gaussians on the CPU out.

N items, B batch, H/W pixels, L tokens, D dimensions.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.data import BatchLoader, Members
from prolip.data.device import DeviceBatch, device_batches
from prolip.data.tokenizer import Tokenizer
from prolip.embeddings.image_batches import picture_batches
from prolip.gaussian import Gaussian, concatenate
from prolip.models import ProLIP
from prolip.models.precision import autocast
from prolip.pretrained.eval_model import EvalModel


class Embedded(NamedTuple):
    """Every picture of a loader, in its order."""

    gaussian: Gaussian
    """[N, D] on the CPU, float32."""
    keys: list[str]
    members: Members
    """The samples' members that are kept, N of each extension."""


class Paired(NamedTuple):
    """Every picture of a loader with a caption of each slot, in its order. C slots, none without captions."""

    image: Gaussian
    """[N, D] on the CPU, float32."""
    text: Gaussian
    """[C, N, D] on the CPU, float32."""
    token_ids: Tensor
    """i64 [C, N, L] on the CPU."""
    keys: list[str]
    members: Members
    """The samples' members that are kept, N of each extension."""


class Pictures(NamedTuple):
    """Every picture of a loader, decoded and normalised but not embedded."""

    images: Tensor
    """f32 [N, 3, H, W]."""
    keys: list[str]
    members: Members
    """The samples' members that are kept, N of each extension."""


def embed_images(
    model: ProLIP,
    loader: BatchLoader,
    device: torch.device,
    *,
    on_progress: Callable[[int], object] | None = None,
) -> Embedded:
    """Gaussians of all pictures of a loader, batch by batch; the model's mode is restored afterwards.

    `on_progress` is called with the number of pictures of every batch.

    Raises:
        ValueError: the loader gave no picture.
    """
    parts: list[Gaussian] = []
    keys: list[str] = []
    members = _no_members(loader.config.keep_members)
    with evaluating(model):
        for batch in device_batches(loader, device):
            parts.append(_on_cpu(model.encode_image(batch.images)))
            keys.extend(batch.keys)
            _extend(members, batch.members)
            if on_progress is not None:
                on_progress(len(batch.keys))
    if not parts:
        raise ValueError("the loader gave no picture")
    return Embedded(concatenate(parts), keys, members)


def embed_pairs(model: ProLIP, loader: BatchLoader, device: torch.device) -> Paired:
    """Gaussians of all pictures of a loader and of their captions; the model's mode is restored afterwards.

    A loader without pictures, such as a rank's that has no part of a small set, gives none.
    """
    dim = model.config.embed_dim
    none = torch.zeros(0, dim)
    images, texts, ids = [Gaussian(none, none)], [], []
    keys: list[str] = []
    members = _no_members(loader.config.keep_members)
    with evaluating(model):
        for batch in device_batches(loader, device):
            images.append(_on_cpu(model.encode_image(batch.images)))
            slots, items, length = batch.token_ids.shape
            if slots:
                flat = _on_cpu(model.encode_text(batch.token_ids.view(slots * items, length)))
                texts.append(Gaussian(flat.mean.view(slots, items, dim), flat.log_var.view(slots, items, dim)))
                ids.append(batch.token_ids.cpu())
            keys.extend(batch.keys)
            _extend(members, batch.members)
    if not texts:
        slots, length = len(loader.config.captions), loader.config.tokenizer.context_length
        empty = torch.zeros(slots, 0, dim)
        texts, ids = [Gaussian(empty, empty)], [torch.zeros(slots, 0, length, dtype=torch.int64)]
    return Paired(concatenate(images), concatenate(texts, -2), torch.cat(ids, 1), keys, members)


def embed_shards(
    model: EvalModel,
    shards: Sequence[str],
    *,
    batch_size: int = 128,
    keep: Sequence[str] = (),
    on_progress: Callable[[int], object] | None = None,
) -> Embedded:
    """Gaussians of all pictures of some shards, in their order, each as the model wants it; unreadable ones are left
    out.

    `keep` names the extensions of members that are wanted with the pictures. `on_progress` is called with the number of
    pictures of every batch.

    Raises:
        ValueError: there is no picture.
        DataError: a shard is no archive, or more than one picture in a hundred cannot be read.
    """
    found = embed_views(
        model,
        shards,
        {"whole": model.encode_image},
        batch_size=batch_size,
        keep=keep,
        on_progress=on_progress,
    )
    return found["whole"]


def embed_views(
    model: EvalModel,
    shards: Sequence[str],
    views: Mapping[str, Callable[[Tensor], Gaussian]],
    *,
    batch_size: int = 128,
    keep: Sequence[str] = (),
    on_progress: Callable[[int], object] | None = None,
) -> dict[str, Embedded]:
    """As `embed_shards`, in several ways at once: every view makes Gaussians [B, D] of pictures f32 [B, 3, H, W].

    Raises:
        ValueError: there is no picture.
        DataError: a shard is no archive, or more than one picture in a hundred cannot be read.
    """
    parts: dict[str, list[Gaussian]] = {name: [] for name in views}
    keys: list[str] = []
    members = _no_members(keep)
    with evaluating(model.network), autocast(model.precision, model.device):
        for batch in picture_batches(model.preprocess, shards, model.device, batch_size, keep=keep):
            for name, view in views.items():
                parts[name].append(_on_cpu(view(batch.images)))
            keys.extend(batch.keys)
            _extend(members, batch.members)
            if on_progress is not None:
                on_progress(len(batch.keys))
    if not keys:
        raise ValueError(f"{', '.join(shards)}: no picture")
    return {name: Embedded(concatenate(some), keys, members) for name, some in parts.items()}


def embed_captions(
    model: EvalModel,
    captions: Sequence[str],
    batch_size: int = 512,
    *,
    on_progress: Callable[[int], object] | None = None,
) -> Gaussian:
    """Gaussians of captions, [N, D] on the CPU.

    `on_progress` is called with the number of captions of every forward pass.
    """
    parts: list[Gaussian] = []
    with evaluating(model.network), autocast(model.precision, model.device):
        for start in range(0, len(captions), batch_size):
            ids = model.tokenize(captions[start : start + batch_size])
            parts.append(_on_cpu(model.encode_text(ids.to(model.device))))
            if on_progress is not None:
                on_progress(len(ids))
    return concatenate(parts)


def read_pictures(loader: BatchLoader) -> Pictures:
    """All pictures of a loader in memory: for a small set that several models or views of it are to embed."""
    images: list[Tensor] = []
    keys: list[str] = []
    members = _no_members(loader.config.keep_members)
    for batch in device_batches(loader, torch.device("cpu")):
        images.append(batch.images)
        keys.extend(batch.keys)
        _extend(members, batch.members)
    if not images:
        raise ValueError("the loader gave no picture")
    return Pictures(torch.cat(images), keys, members)


def embed_pictures(
    model: ProLIP,
    images: Tensor,
    device: torch.device,
    kept_patches: Tensor | None = None,
    batch_size: int = 256,
) -> Gaussian:
    """Gaussians of normalised pictures, [N, D].

    Args:
        model: the model; its mode is restored afterwards.
        images: f32 [N, 3, H, W].
        device: where the model is.
        kept_patches: sorted i64 [N, K]; the patches the model sees of each picture, None for all.
        batch_size: pictures a forward pass.
    """
    parts: list[Gaussian] = []
    with evaluating(model):
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            kept = None if kept_patches is None else kept_patches[rows].to(device)
            parts.append(_on_cpu(model.encode_image(images[rows].to(device), kept)))
    return concatenate(parts)


def embed_texts(
    model: ProLIP,
    tokenizer: Tokenizer,
    captions: Sequence[str],
    device: torch.device,
    batch_size: int = 512,
    *,
    on_progress: Callable[[int], object] | None = None,
) -> Gaussian:
    """Gaussians of captions, [N, D]; always padded to the full context, as the text tower was trained (SPEC §2.3).

    `on_progress` is called with the number of captions of every forward pass.
    """
    parts: list[Gaussian] = []
    with evaluating(model):
        for start in range(0, len(captions), batch_size):
            ids = torch.from_numpy(tokenizer.encode(list(captions[start : start + batch_size]))).long()
            parts.append(_on_cpu(model.encode_text(ids.to(device))))
            if on_progress is not None:
                on_progress(len(ids))
    return concatenate(parts)


def embed_batch(model: ProLIP, batch: DeviceBatch, *, image: bool, text: bool, low: bool) -> dict[str, Gaussian]:
    """The Gaussians of a batch's pictures ("image") and first captions ("text"), each [B, D] on the CPU in float32.

    The caller sees to it that the model is in evaluation mode (`evaluating`) and on the batch's device. `low` computes
    in bfloat16 where torch's autocast does.
    """
    found: dict[str, Gaussian] = {}
    with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=low):
        if image:
            found["image"] = _on_cpu(model.encode_image(batch.images))
        if text:
            found["text"] = _on_cpu(model.encode_text(batch.token_ids[0]))
    return found


def picture_side(model: ProLIP) -> int:
    """Side of the square pictures that a model takes.

    Raises:
        ValueError: its pictures are not square.
    """
    size = model.config.vision.image_size
    if not isinstance(size, int):
        raise ValueError(f"vision.image_size is {size}: only square pictures can be read")
    return size


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the mode the model came in is restored."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def _no_members(extensions: Sequence[str]) -> Members:
    return {extension: [] for extension in extensions}


def _extend(members: Members, more: Members) -> None:
    for extension, some in more.items():
        members[extension].extend(some)


def _on_cpu(gaussian: Gaussian) -> Gaussian:
    return Gaussian(gaussian.mean.float().cpu(), gaussian.log_var.float().cpu())
