"""Runs that start from a SigLIP model of open_clip, with a locked tower."""

from pathlib import Path

import pytest
import torch
from tests.support.siglip import architecture, save

from prolip.models.hub import save_pretrained
from prolip.pretrained.sources import load_network

START = ("--architecture", "start_from", "--start_from")


@pytest.fixture(scope="module")
def siglip(lab):
    described = architecture("vit_prolip_lab", 12, width=16, heads=2, layers=1, vocab=10, context=4)
    return save(lab.folder / "lab-siglip", described)


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
