"""Choose the samples of a step among its candidates. The host does not wait for the device.

S candidates of this process, G groups of N, B chosen samples of which the first M are masked, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from prolip.data import BatchLoader, MaskConfig
from prolip.data.device import DeviceBatch
from prolip.distributed import Ranks
from prolip.embeddings.storage import Manifest, paired_parts
from prolip.errors import UserError, check
from prolip.folders import Folder
from prolip.gaussian import Gaussian, concatenate
from prolip.losses.choice import Judge, Side, choose
from prolip.models import ProLIP
from prolip.models.precision import autocast
from prolip.train.config import TrainConfig


class Reference:
    """Stored embeddings of the training data, joined by their shards' stamps, rows and keys."""

    def __init__(self, address: str, loader: BatchLoader, device: torch.device) -> None:
        """Read them into memory.

        Raises:
            UserError: they are not finished, or not of pairs, or lack a shard of the loader's, or cannot be told apart.
        """
        folder = Folder(address)
        pairs, manifest = paired_parts(folder), Manifest.read(folder)
        check(manifest.logit_bias is not None, "choose.reference", "must have a bias of the similarity", address)
        self._address, self._device, self._loader, self._stamps = address, device, loader, loader.stamps()
        self._places = dict[tuple[str, int, str], int]()
        means, total_vars = list[list[Tensor]](), list[list[Tensor]]()
        for image, text in pairs:
            keys = iter(image.names()[0])
            for blocks in zip(image.blocks(), text.blocks(), strict=True):
                for row, key in zip(blocks[0].rows.tolist(), keys, strict=False):
                    self._places[image.notes.stamp, row, key] = len(self._places)
                means.append([torch.tensor(one.mean, dtype=getattr(torch, manifest.dtype)) for one in blocks])
                total_vars.append([torch.tensor(one.total_var) for one in blocks])
        self._means, self._total_vars = (
            [torch.cat(side) for side in zip(*some, strict=True)] for some in (means, total_vars)
        )
        check(len(self._places) == len(self._means[0]), "choose.reference", "must have no sample twice", address)
        missing = {*self._stamps} - {"", *(image.notes.stamp for image, _ in pairs)}
        rule = "must be of the training data, as it is now; embed it again"
        check(not missing, "choose.reference", rule, f"{address} lacks {len(missing)} shards")
        self._logit = [torch.tensor(each, device=device) for each in (manifest.logit_scale, manifest.logit_bias)]

    def judge(self, batch: DeviceBatch, group: int) -> Judge:
        """The reference's scores of a batch of candidates, all of which it must have."""
        shards = batch.shards.tolist()
        if not all(self._stamps[shard] for shard in shards):  # a shard has arrived since
            self._stamps = self._loader.stamps()
        places = zip([self._stamps[shard] for shard in shards], batch.rows.tolist(), batch.keys, strict=True)
        try:
            rows = torch.tensor([self._places[place] for place in places])
        except KeyError as error:
            _, row, key = error.args[0]
            raise UserError(
                "choose.reference", f"must have sample {key}, row {row} of its shard", self._address
            ) from error
        sides = []
        for mean, total_var in zip(self._means, self._total_vars, strict=True):
            there = _sent(mean[rows], self._device).float(), _sent(total_var[rows], self._device)
            sides.append(Side(there[0].view(-1, group, mean.shape[1]), there[1].view(-1, group)))
        (image, text), (scale, bias) = sides, self._logit
        return Judge(image, text, scale, bias, weight=-1.0)


def open_reference(config: TrainConfig, loader: BatchLoader, device: torch.device) -> Reference | None:
    """The reference of a run, if its choice needs one."""
    address, by = config.choose.reference, config.choose.by
    state = "absent" if by == "learner" else "given"
    check((address is None) == (by == "learner"), "choose.reference", f"must be {state} with choose.by {by}", address)
    return None if address is None else Reference(address, loader, device)


class Chooser:
    """Chooses the samples of each step. One per process."""

    def __init__(self, config: TrainConfig, model: ProLIP, ranks: Ranks, loader: BatchLoader) -> None:
        self._config, self._model = config, model
        self._precision = partial(autocast, config.precision, ranks.device)
        self._reference = open_reference(config, loader, ranks.device)

    @torch.no_grad()
    def __call__(self, candidates: DeviceBatch, step: int) -> tuple[DeviceBatch, Tensor]:
        """The chosen samples, and how much larger their scores are than those of all candidates, on the device.

        Of the fields on the host, only `keys` is that of the samples; reading it waits for the device.
        """
        config = self._config.choose
        judges = [] if self._reference is None else [self._reference.judge(candidates, config.group)]
        deviation: Tensor | None = None
        if config.scores:
            image, text = self._embed(candidates, step)
            if config.deviation:
                squares = image.mean.square() * text.var + text.mean.square() * image.var + image.var * text.var
                deviation = squares.sum(-1).sqrt()
            if self._config.loss.contrast == "siglip":
                image, text = Gaussian.point(image.mean), Gaussian.point(text.mean)
            if config.by != "reference":
                bias = self._model.logit_bias
                assert bias is not None
                judges.append(Judge(Side.of(image), Side.of(text), self._model.logit_scale.exp(), bias))
        chosen = choose(judges, config.num_chosen, config.chunks, deviation)
        scores = torch.stack([judge.own() for judge in judges]).sum(0)
        gap = scores.take_along_dim(chosen, 1).mean() - scores.mean()
        firsts = torch.arange(0, scores.numel(), config.group, device=scores.device)
        return _rows(candidates, (chosen + firsts[:, None]).flatten(), self._config.data.masking), gap

    def _embed(self, candidates: DeviceBatch, step: int) -> tuple[Gaussian, Gaussian]:
        """Embed part of the patches of each candidate's image, and its first caption, [G, N, D]."""
        config, model, images = self._config, self._model, candidates.images
        assert isinstance(images, Tensor)
        num_patches = model.config.vision.num_patches
        kept: Tensor | None = None
        if config.choose.keep_patches < 1:
            order = torch.randperm(num_patches, generator=torch.Generator().manual_seed((config.seed << 32) + step))
            kept = _sent(order[: max(1, int(num_patches * config.choose.keep_patches))].sort().values, images.device)
        size = len(images) * config.choose.num_chosen // config.choose.group  # no more memory than a step's
        with self._precision():
            found = (
                [model.encode_image(some, kept) for some in torch.split(images, size)],
                [model.encode_text(some) for some in torch.split(candidates.token_ids[0], size)],
            )
        image, text = (concatenate(some).unflatten(-1, config.choose.group) for some in found)
        return image, text


class _Keys(Sequence[str]):
    """The keys of chosen rows. Reading one waits for the device."""

    def __init__(self, keys: Sequence[str], rows: Tensor) -> None:
        self._keys, self._rows = keys, rows

    def __getitem__(self, place: int) -> str:  # type: ignore[override]
        return self._keys[int(self._rows[place])]

    def __len__(self) -> int:
        return len(self._rows)


def _sent(numbers: Tensor, device: torch.device) -> Tensor:
    """Copy to the device. From memory that is not page-locked, this would wait for the device's work."""
    return numbers.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else numbers.to(device)


def _rows(batch: DeviceBatch, rows: Tensor, mask: MaskConfig | None) -> DeviceBatch:
    masked = rows[: 0 if mask is None else max(1, int(len(rows) * mask.masked_fraction))]
    ids, kept = batch.masked_token_ids, batch.kept_patches
    assert isinstance(batch.images, Tensor)
    return batch._replace(
        images=batch.images[rows],
        token_ids=batch.token_ids[:, rows],
        masked_token_ids=None if ids is None else ids[:, masked],
        kept_patches=None if kept is None else kept[masked],
        keys=_Keys(batch.keys, rows),
    )
