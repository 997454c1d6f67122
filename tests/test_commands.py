"""One short run of each command over the world, from its words to what it wrote."""

import json
import random
import time

import pytest
import torch

import prolip
from prolip.checkpoint import find_latest
from prolip.cli import main
from tests.support.small_training import Lab, same_weights


@pytest.fixture
def run(world, tmp_path, monkeypatch, capsys):
    """Runs a command in an own folder, with the world's paths in place of `{run}`, `{shards}`, …; what it printed."""
    monkeypatch.chdir(tmp_path)

    def command(text):
        assert main(text.format(**world._asdict()).split()) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    return command


def test_a_trained_run_has_its_steps_and_its_loss_falls(world):
    rows = [json.loads(line) for line in (world.run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, 20, 24]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert find_latest(world.run / "checkpoints").step == 24


def test_a_run_killed_at_a_random_moment_ends_with_the_same_bits(world, tmp_path):
    """tests/slow has the moments one by one."""
    seed = random.randrange(1000)
    print(f"{seed=}")
    lab, name = Lab(world.folder), str(tmp_path / "killed")
    flags = ("--checkpoint_every", "2", "--keep_checkpoints", "99")
    with lab.start(name, *flags, processes=1) as job:
        job.wait_for(lab.has(name, "checkpoints/step_*"))
        time.sleep(0.1 * random.Random(seed).random())
        job.kill()
    assert lab.here(name, *flags) == 0
    assert same_weights(lab.latest(name), find_latest(world.run / "checkpoints"))


def test_search_finds_a_colour_by_an_image_and_by_text(run):
    for query in ("--image {images}/red/000.png", "--text red"):
        out = run(f"search --embeddings {{embeddings}} {query} --k 3 --json --sheet sheet.html --device cpu")
        captions = [answer["caption"].split()[0] for answer in json.loads(out)[0]["answers"]]
        assert captions == ["red"] * 3


def test_classify_and_compare_agree_with_the_model(run, world):
    image = world.images / "red" / "000.png"
    classified, compared = (
        json.loads(run(f"{command} {image} red green --checkpoint {{run}} --json --device cpu"))
        for command in ("classify", "compare")
    )
    model = prolip.load(world.run, device="cpu")
    distances = prolip.csd(model.encode_images([image]), model.encode_texts(["red", "green"]))[0]
    found = {row["text"]: row["csd"] for row in compared["texts"]}
    assert [found["red"], found["green"]] == pytest.approx(distances.tolist(), rel=1e-5)
    assert classified["labels"][0]["label"] == "red"
    assert sum(row["probability"] for row in classified["labels"]) == pytest.approx(1)


def test_a_folder_is_classified_with_label_sets(run, tmp_path):
    run(
        "classify {images} --labels blue green red --checkpoint {run} --calibration {calibration} --guarantee 0.9"
        " --out answers.csv --device cpu"
    )
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 1 + 3 * 40


@pytest.mark.parametrize(
    "suite",
    [
        "zero_shot --data {images}",
        "retrieval --data {shards} --caption_key captions.name",
        "calibration --data {images} --calibration {calibration}",
    ],
)
def test_a_suite_writes_its_results(run, tmp_path, suite):
    run(f"eval {suite} --checkpoint {{run}} --num_resamples 10 --out results --device cpu")
    assert json.loads((tmp_path / "results" / "results.json").read_text())["figures"]
    assert "</html>" in (tmp_path / "results" / "results.html").read_text()


def test_an_adapted_model_keeps_the_means(run, world, tmp_path):
    run("adapt --embeddings {embeddings} --checkpoint {run} --out adapted --heads.steps 5 --heads.batch_size 16")
    adapted, frozen = (prolip.load(source, device="cpu").encode_texts("red left") for source in ("adapted", world.run))
    torch.testing.assert_close(adapted.mean, frozen.mean)


def test_an_exported_model_is_the_run(run, world):
    run("export {run} --out exported")
    assert prolip.load("exported").fingerprint() == prolip.load(world.run).fingerprint()


def test_own_images_become_shards_that_are_embedded(run):
    run("data build folder --images {images} --out shards")
    run("data index --shards shards/*.tar --out index")
    run("embed --checkpoint {run} --shards shards/*.tar --out embedded --device cpu")
    run("data dedupe --embeddings embedded --threshold 0.9 --out kept.parquet")


def test_a_selection_is_copied_and_trained_on(run, tmp_path):
    run("data select --embeddings {embeddings} --keep_share 0.5 --out chosen.parquet")
    run("data copy --selection chosen.parquet --out copied")
    run("train {recipe} --samples_seen 32 --data.shards --data.selection chosen.parquet --out run")
    run("report run")
    assert "</html>" in (tmp_path / "run" / "report.html").read_text()
