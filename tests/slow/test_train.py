"""Whole runs of a small recipe: loss curves, checkpoints, divergence, errors of wrong data and recipes."""

import math

import numpy as np
import pytest
import torch
from tests.support.shards import read_tar, write_tar
from tests.support.small_step import ALONE
from tests.support.small_training import SHORT, same_weights, write_shard

from prolip.data import BatchLoader
from prolip.data.device import device_batches
from prolip.distributed import Peers
from prolip.losses import ProlipLoss
from prolip.models import ProLIP
from prolip.pretrained.sources import load_network
from prolip.store.selection import Chosen, write_selection
from prolip.train.config import load_config
from prolip.train.cost import step_flops
from prolip.train.optim import make_optimizer


def test_the_loop_takes_the_steps_of_a_reference_loop(lab):
    # Each rule bites: warm-up, a gradient above the clip norm, a scale above its limit, masked rows in every batch.
    flags = ("--samples_seen", "64", "--optim.clip_norm", "0.1", "--model.init_logit_scale", "5")
    flags = (*flags, "--log.peak_tflops", "0.5")
    assert lab.here("stepped", *flags) == 0
    config = load_config(lab.words("stepped", *flags))
    torch.manual_seed(config.seed)
    model = ProLIP(config.model)
    optimizer = make_optimizer(model, config.optim, ALONE)
    loss, totals = ProlipLoss(config.loss, Peers()), []
    with BatchLoader(config.loader(1)) as loader:
        for step, batch in zip(range(4), device_batches(loader, torch.device("cpu")), strict=False):
            assert batch.masked_token_ids is not None
            terms = loss(model(batch.images, batch.token_ids, batch.masked_token_ids, batch.kept_patches))
            totals.append(float(terms.total.detach()))
            for parameter in model.parameters():
                parameter.grad = None
            terms.total.backward()
            assert torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1) > 0.1
            for group in optimizer.param_groups:
                group["lr"] = config.optim.lr * (step + 1) / config.optim.warmup_steps
            optimizer.step()
            model.logit_scale.data.clamp_(max=math.log(100))
    saved = lab.latest("stepped")
    assert saved.step == 4
    assert saved.notes.cursor == {"epoch": 0, "legs": [{"world_size": 1, "batch_size": 16, "steps": 4}]}
    weights = saved.model()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(weights[name], tensor, msg=name)
    row = lab.rows("stepped")[-1]
    assert row["loss"] == pytest.approx(sum(totals) / 4)
    assert row["lr"] == pytest.approx(config.optim.lr * 4 / config.optim.warmup_steps)
    flops = step_flops(config).useful
    assert row["mfu"] == pytest.approx(flops / 16 * row["samples_per_s"] / 0.5e12)


def test_a_finished_run_does_nothing(lab, finished):
    newest = lab.latest(finished).path
    written = newest.stat().st_mtime_ns
    assert lab.here(finished) == 0
    assert newest.stat().st_mtime_ns == written


def test_a_run_on_a_selection_is_that_on_copies_of_its_samples(watched):
    """Sets to evaluate are read whole."""
    whole, copies, chosen = (watched.folder / name for name in ("whole.tar", "copies.tar", "chosen.parquet"))
    write_shard(whole)
    rows = np.flatnonzero(np.arange(64) % 3).astype(np.uint32)
    members = read_tar(whole)
    write_tar(copies, [members[place] for row in rows for place in (2 * row, 2 * row + 1)])
    write_selection(chosen, [Chosen(str(whole), "", rows)])
    names = {"copied": ["--data.shards", str(copies)], "chosen": ["--data.shards", "--data.selection", str(chosen)]}
    measured = []
    for name, flags in names.items():
        assert watched.here(name, *SHORT, *flags) == 0
        last = watched.rows(name)[-1]
        measured.append({key: value for key, value in last.items() if key.startswith("val/") and "seconds" not in key})
    assert same_weights(*map(watched.latest, names))
    assert measured[0] == measured[1] != {}


def test_what_cannot_be_run_ends_with_status_2(lab):
    text = lab.folder / "text.tar"
    text.write_text("not an archive " * 100)
    assert lab.here("unread", "--data.shards", str(text)) == 2
    assert lab.here("uncaptioned", "--data.captions.0.sources.0.key", "absent") == 2
    (lab.folder / "a file").write_text("")
    assert lab.here("a file") == 2
    assert lab.here("mixed", "--samples_seen", "32") == 0
    assert lab.here("mixed", "--samples_seen", "64", "--optim.lr", "1e-4") == 2, "another recipe in the same folder"
    assert lab.here("mixed", "--samples_seen", "32", "--log_every", "1") == 0


def test_an_error_of_any_rank_is_logged_once_and_ends_all(lab):
    with lab.start("misspelt", "--optim.lrr", "1", processes=2) as job:
        assert job.wait() == [2, 2], job.told()
    assert job.told().count("optim.lrr") == 1


def test_a_run_starts_from_the_weights_of_another_and_resumes_without_them(lab, short):
    lab.copy(short, "begun")
    flags = ("--start_from", str(lab.folder / "begun"), "--samples_seen", "640", "--optim.lr", "1e-9")
    assert lab.here("started", *flags) == 0
    ended = [load_network(lab.folder / name).state_dict() for name in ("begun", "started")]
    for name, tensor in ended[0].items():
        torch.testing.assert_close(ended[1][name], tensor, atol=1e-5, rtol=0)
    # Its own checkpoints count from then on, whatever became of the start.
    whole = load_network(lab.folder / "started").state_dict()
    (lab.folder / "begun").rename(lab.folder / "gone")
    assert lab.here("started", *flags, "--resume", "20") == 0
    again = load_network(lab.folder / "started").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())
