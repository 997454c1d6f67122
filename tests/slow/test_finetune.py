"""Runs that start from a SigLIP model of open_clip, with locked towers, and controls without uncertainty."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.support.siglip import CPU, architecture, pretrain
from tests.support.small_training import COLOURS, PLACES, Lab, numbers

from prolip.data import BatchLoader
from prolip.data.device import device_batches
from prolip.models.hub import save_pretrained
from prolip.pretrained.sources import load_network
from prolip.train.config import load_config
from prolip.train.loop import main

START = ("--architecture", "start_from", "--start_from")


@pytest.fixture(scope="module")
def siglip(lab: Lab) -> str:
    described = architecture("vit_prolip_lab", 12, width=16, heads=2, layers=1, vocab=10, context=4)
    return pretrain(lab.folder / "lab-siglip", described, lab.words("siglip"), 200, lr=5e-3)


def accuracy(lab: Lab, run: str) -> float:
    """The share of the images whose most similar caption, of 16, names their colour, its first word."""
    model = load_network(lab.folder / run)
    data = replace(load_config(lab.words(run)).loader(1), mask=None, batch_size=64, shuffle_window=0)
    data = replace(data, augment=replace(data.augment, crop_scale=(1.0, 1.0)))
    with BatchLoader(data) as loader:
        batch = next(iter(device_batches(loader, CPU, dtype=torch.float32)))
    captions, own = batch.token_ids[0].unique(dim=0, return_inverse=True)
    assert len(captions) == len(COLOURS) * len(PLACES)
    with torch.no_grad():
        found = (model.encode_image(batch.images).mean @ model.encode_text(captions).mean.T).argmax(1)
    return float((captions[found, 0] == captions[own, 0]).float().mean())


def test_a_start_from_siglip_beats_one_from_scratch_in_as_many_steps(lab, siglip):
    steps = ("--samples_seen", "320", "--optim.lr", "1e-3")
    assert lab.here("from-siglip", *steps, *START, siglip) == 0
    # The same recipe and towers, random.
    scratch = f"{lab.folder}/from-siglip/config.toml --architecture demo --start_from None".split()
    assert main([*scratch, *f"--out {lab.folder}/scratch --model.init_logit_bias -10".split()]) == 0
    started, alone = lab.rows("from-siglip"), lab.rows("scratch")
    assert numbers(started, "step") == numbers(alone, "step") == [10, 20]
    assert numbers(started, "ppcl")[-1] < numbers(alone, "ppcl")[-1] - 0.5
    assert accuracy(lab, "from-siglip") > accuracy(lab, "scratch") + 0.2


def test_two_processes_train_what_is_not_locked(lab, siglip):
    started = load_network(siglip)
    save_pretrained(started, lab.folder / "siglip-start")  # what another process can open without timm's new tower
    flags = ("--batch_size", "16", "--samples_seen", "80", "--lock.image", "True", "--loss.contrast", "siglip")
    program = (str(Path(__file__).parent / "programs" / "both_strategies.py"),)
    lab.launch("locked", *flags, *START, str(lab.folder / "siglip-start"), processes=2, program=program)
    unc = {"visual.unc_embedding", "visual.uncertainty_proj.weight", "visual.uncertainty_proj.bias"}
    before = started.state_dict()
    for strategy in ("ddp", "fsdp"):
        after = load_network(lab.folder / f"locked-{strategy}").state_dict()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed == {name for name in before if name.startswith("text.")} | unc | {"logit_scale", "logit_bias"}
