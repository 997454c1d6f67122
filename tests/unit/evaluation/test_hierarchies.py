"""`prolip eval hierarcaps` and `hierarimgs` against the functions behind them, on small data."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.support.captioned_sets import caption, write_hierarchies
from tests.support.captioned_world import CaptionedWorld, evaluate, mean_ranks
from tests.support.datacomp_sets import write_open_clip

from prolip.cli import main
from prolip.embeddings.embed import embed_captions, embed_shards
from prolip.evaluation.caption_sets import open_captioned
from prolip.evaluation.csv_datasets import read_levels
from prolip.evaluation.hierarchies import NEEDS_VARIANCES, level_rows
from prolip.gaussian import Gaussian
from prolip.metrics.hierarchy import mean_root, string_ids
from prolip.metrics.measures import measure_hierarchy


def test_all_figures_equal_those_of_measure_hierarchy(world: CaptionedWorld) -> None:
    levels, _ = read_levels(world.hierarchies / "table.csv", "captions", "image_url")
    ids = string_ids(levels)
    flat = embed_captions(world.model, [text for row in levels for text in row])
    captions = Gaussian(flat.mean.view(6, 3, -1), flat.log_var.view(6, 3, -1))
    root = embed_captions(world.model, [""]).mean[0]
    for suite in ("hierarcaps", "hierarimgs"):
        found = world.run(suite, "--data", str(world.hierarchies))
        values = world.values(found, world.ours)
        assert found["notes"] == {world.ours: [], world.theirs: [f"{NEEDS_VARIANCES}: the model has no variances"]}
        made = open_captioned(str(next((world.root / suite / "data").glob("*.tar"))), world.root).shards
        images = embed_shards(world.model, made).gaussian
        if suite == "hierarcaps":  # rows 0 to 5 name h2 to h7
            expected = measure_hierarchy(images, captions, ids, root, num_resamples=1)
        else:
            # As they are named first: h0, h1, h2; h0, h2, h3; h0, h1, h4; …
            order = ["h0", "h1", "h2", "h2", "h3", "h4", "h5", "h6", "h7"]
            place = {name: number for number, name in enumerate(dict.fromkeys(order))}
            rows = [[place["h0"], place[f"h{1 + row % 2}"], place[f"h{2 + row}"]] for row in range(6)]
            ids = torch.tensor(rows)
            items = images[ids]
            texts = embed_captions(world.model, [caption(row, 1) for row in range(6)])
            expected = measure_hierarchy(texts, items, ids, mean_root(items), num_resamples=1)
        for kind, said in (
            ("text", "root"),
            ("inclusion_official", "including item (official)"),
            ("inclusion_exact", "including item (exact)"),
            ("both_official", "root and including item (official)"),
            ("both_exact", "root and including item (exact)"),
        ):
            for figure in ("precision", "recall", "any_found"):
                metric = f"{figure.replace('_', ' ')}, to the {said}"
                assert values[metric] == pytest.approx(expected[f"{kind}_{figure}"]), (suite, metric)
        for level in range(3):
            metric = f"lies in its level {level} (0 is the most general)"
            assert values[metric] == pytest.approx(expected[f"include_{level}"])
        assert values["uncertainty falls at every level"] == pytest.approx(expected["level_share_ordered"])
        metric = "rank correlation of uncertainty with generality"
        assert values[metric] == pytest.approx(expected["level_spearman"])
        without_variances = world.values(found, world.theirs)
        assert "precision, to the root" in without_variances
        assert metric not in without_variances


def test_level_figures_of_a_hand_made_example() -> None:
    """Four chains of three levels: one falls throughout, one rises, one stays once, one falls and rises."""
    totals = torch.tensor([[4.0, 2.0, 1.0], [1.0, 2.0, 4.0], [4.0, 4.0, 1.0], [4.0, 1.0, 2.0]])
    items = Gaussian(torch.zeros(4, 3, 2), (totals / 2).log()[..., None].expand(4, 3, 2))
    queries = Gaussian(torch.zeros(4, 2), torch.full((4, 2), 0.5).log())  # of total variance 1
    walked: Any = SimpleNamespace(queries=queries, items=items)
    found = {row.metric: row for row in level_rows("set", walked)}
    assert found["uncertainty falls at every level"].items == [1.0, 0.0, 0.0, 0.0]
    # Among means that are equal the wider one includes; equally wide ones do not include each other.
    assert found["lies in its level 0 (0 is the most general)"].items == [1.0, 0.0, 1.0, 1.0]
    assert found["lies in its level 2 (0 is the most general)"].items == [0.0, 1.0, 0.0, 1.0]
    general = torch.tensor([[2.0, 1.0, 0.0]]).expand(4, 3)
    ranks = torch.corrcoef(torch.stack([mean_ranks(totals.flatten()), mean_ranks(general.flatten())]))
    assert found["rank correlation of uncertainty with generality"].value == pytest.approx(float(ranks[0, 1]))


def test_both_hierarchy_suites_can_share_an_output_folder(world: CaptionedWorld) -> None:
    """Each has its own images of the folder, in a shard of its own."""
    alone = world.values(world.run("hierarimgs", "--data", str(world.hierarchies)), world.ours)
    out = world.root / "shared"
    for suite in ("hierarcaps", "hierarimgs"):
        words = ["--checkpoint", world.ours, "--data", str(world.hierarchies), "--num_resamples", "0"]
        assert main(["eval", suite, *words, "--out", str(out)]) == 0
    assert world.values(json.loads((out / "results.json").read_text()), world.ours) == alone


FAULTS = {
    "no image": (lambda folder: (folder / "h4.png").unlink(), "has no image h4.png"),
    "broken image": (lambda folder: (folder / "h4.png").write_bytes(b"none"), "cannot be"),
    "two tables": (lambda folder: (folder / "other.csv").write_text("a\n1\n"), "has 2 tables (.csv): it must have one"),
    "a short row": (
        lambda folder: (folder / "table.csv").write_text((folder / "table.csv").read_text() + "a\n"),
        "rows differ in their number of levels",
    ),
    "one level": (
        lambda folder: (folder / "table.csv").write_text((folder / "table.csv").read_text().replace(" => ", " > ")),
        "has one level: it must have several, joined by ' => '",
    ),
    "no text": (lambda folder: (folder / "table.csv").write_bytes(b"\xff\n"), "table.csv: 'utf-8' codec"),
    "broken zip": (lambda folder: (folder / "more.zip").write_bytes(b"none"), "more.zip: File is not a zip file"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("suite", ["hierarcaps", "hierarimgs"])
def test_errors_of_a_hierarchy_name_the_file(
    suite: str, fault: str, world: CaptionedWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "hierarchies"
    write_hierarchies(folder)
    damage, said = FAULTS[fault]
    damage(folder)
    words = ["--checkpoint", world.ours, "--data", str(folder), "--out", str(tmp_path / "out")]
    assert main(["eval", suite, *words]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith(f"prolip eval {suite}: ")
    assert said in told
    assert str(folder) in told or str(tmp_path / "out") in told


def test_hierarcaps_figures_are_the_same_with_images_in_a_zip(world: CaptionedWorld, tmp_path: Path) -> None:
    folder, source = tmp_path / "hierarchies", write_open_clip(tmp_path / "clip")
    write_hierarchies(folder)
    loose = evaluate("hierarcaps", source, tmp_path / "loose", "--data", str(folder))
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for path in sorted(folder.glob("*.png")):
            archive.write(path, f"inside/{path.name}")
            path.unlink()
    packed = evaluate("hierarcaps", source, tmp_path / "packed", "--data", str(folder))
    assert packed == loose
