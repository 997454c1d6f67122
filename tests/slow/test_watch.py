"""Runs with validation, logging and progress: the training itself is unchanged."""

import json
import shutil

from tests.support.small_training import COLOURS, PLACES, SHARDED, SHORT, numbers, same_weights

from prolip.checkpoint import list_checkpoints, read_best

SHOWN = ("--log.examples_every", "10")


def test_validation_does_not_change_the_steps_and_the_best_is_kept(lab, short, watched):
    flags = (*SHORT, "--keep_checkpoints", "1")
    metric = "val/pairs/image_to_text_mean_rank"
    # The start has the largest rank, which is the best here, so that the best is not the newest.
    kept = ("--keep_best", metric, "--best_is", "max")
    assert watched.here("watched", *flags, *kept, "--log_every", "100", *SHOWN) == 0
    assert same_weights(watched.latest("watched"), lab.latest(short))
    shown = sorted(path.name for path in (watched.folder / "watched" / "examples").iterdir())
    assert shown == ["step_10.jsonl", "step_10.png", "step_20.jsonl", "step_20.png"]
    lines = (watched.folder / "watched" / "examples" / "step_20.jsonl").read_text().splitlines()
    examples = [json.loads(line) for line in lines]
    assert [one["why"] for one in examples] == ["most certain"] * 6 + ["least certain"] * 6 + ["random"] * 6
    assert examples[0]["uncertainty"] <= examples[1]["uncertainty"] < examples[6]["uncertainty"]
    colour, place = examples[0]["captions"][0]["text"].split()
    assert colour in COLOURS
    assert place in PLACES
    rows = watched.rows("watched")
    evaluated = [row for row in rows if "loss" not in row]
    assert [(row["step"], "val/unsure/image_mean" in row) for row in evaluated] == [(8, False), (16, False), (20, True)]
    assert evaluated[-1]["samples"] == 320
    assert evaluated[-1]["val/pairs/text_to_image_recall_at_10"] > 0.3
    assert numbers([row for row in rows if "loss" in row], "step") == [8, 16, 20]

    checkpoints = watched.folder / "watched" / "checkpoints"
    found = read_best(checkpoints)
    ranks = dict(zip(numbers(evaluated, "step"), numbers(evaluated, metric), strict=True))
    step = max(ranks, key=lambda step: ranks[step])
    assert (found[0], found[1].metric, found[1].value) == (step, metric, ranks[step])
    assert step != 20, "the best is not the newest"
    assert [int(path.name.removeprefix("step_")) for path in list_checkpoints(checkpoints)] == [20, step]


def test_a_resumed_sharded_run_validates_each_step_once_and_keeps_its_best(watched, sharded):
    whole = [row for row in watched.rows(sharded) if "loss" not in row]
    assert numbers(whole, "step") == [8, 16, 24]
    watched.copy(sharded, "goes-on")
    checkpoints = watched.folder / "goes-on" / "checkpoints"
    best = read_best(checkpoints)
    for path in list_checkpoints(checkpoints):
        if path.name > "step_000000016":
            shutil.rmtree(path)
    watched.launch("goes-on", *SHARDED, processes=2)
    again = [row for row in watched.rows("goes-on") if "loss" not in row]
    for name in ("step", "val/pairs/image_to_text_mean_rank", "val/pairs/text_to_image_recall_at_1"):
        assert numbers(again, name) == numbers(whole, name)
    assert read_best(checkpoints) == best
