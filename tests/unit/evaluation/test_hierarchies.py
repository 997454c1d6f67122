"""`prolip eval hierarcaps` and `hierarimgs` against the functions behind them, on small data."""

import json
import re
import zipfile

import pytest
import torch
from tests.support.captioned_sets import caption, write_hierarchies
from tests.support.captioned_world import mean_ranks
from tests.support.random_gaussians import gaussians
from tests.support.suite_results import values

from prolip.cli import main
from prolip.datasets.data_set import embed_set, open_images, read_levels
from prolip.evaluation.hierarchies import NEEDS_VARIANCES, Hierarchies, level_rows, walk_rows
from prolip.evaluation.results import RowId
from prolip.gaussian import Gaussian
from prolip.metrics.config import TraversalConfig
from prolip.metrics.hierarchy import items_on_walk, mean_root, string_ids, traverse

KINDS = {
    "root": ("text", "official"),
    "inclusion_official": ("inclusion", "official"),
    "inclusion_exact": ("inclusion", "exact"),
    "both_official": ("both", "official"),
    "both_exact": ("both", "exact"),
}


@pytest.mark.parametrize("suite", ["hierarcaps", "hierarimgs"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_suite_walks_from_each_query_through_its_own_items(suite, packed, world, tmp_path):
    folder, out = tmp_path / "hierarchies", tmp_path / "out"
    write_hierarchies(folder)
    levels, _ = read_levels(folder / "table.csv", "captions", "image_url")
    if packed:
        with zipfile.ZipFile(folder / "images.zip", "w") as archive:
            for path in sorted(folder.glob("*.png")):
                archive.write(path, f"inside/{path.name}")
                path.unlink()
    words = ["--checkpoint", world.ours, "--checkpoint", world.theirs, "--num_resamples", "0"]
    assert main(["eval", suite, *words, *f"--data {folder} --out {out}".split()]) == 0
    found = json.loads((out / "results.json").read_text())
    assert found["notes"] == {world.ours: [], world.theirs: [f"{NEEDS_VARIANCES}: the model has no variances"]}
    assert RowId("walk_precision", by="root") in values(found, 1)
    names = [f"h{number}" for number in (range(2, 8) if suite == "hierarcaps" else range(8))]
    images = embed_set(world.model, open_images(folder, names), 128).gaussian
    if suite == "hierarcaps":  # rows 0 to 5 name h2 to h7
        captions = world.model.encoder.embed_captions([text for row in levels for text in row]).unflatten(6, 3)
        root = world.model.encoder.embed_captions([""]).mean[0]
        data = Hierarchies(images, captions, string_ids(levels), root)
    else:  # as they are named first: h0, h1, h2; h0, h2, h3; h0, h1, h4; …
        place = {name: number for number, name in enumerate(["h0", "h1", "h2", "h3", "h4", "h5", "h6", "h7"])}
        ids = torch.tensor([[place["h0"], place[f"h{1 + row % 2}"], place[f"h{2 + row}"]] for row in range(6)])
        texts = world.model.encoder.embed_captions([caption(row, 1) for row in range(6)])
        data = Hierarchies(texts, images[ids], ids, mean_root(images[ids]))
    expected = {row.id: row.value for row in walk_rows(data)}
    assert values(found) == pytest.approx(expected, rel=1e-4)
    _, *charts = found["charts"][world.ours] or [None]
    assert [chart["title"] for chart in charts] == [
        caption(row, 1) for row in ([] if suite == "hierarcaps" else [0, 2, 4])
    ]
    for row, chart in zip((0, 2, 4), charts, strict=False):
        steps = items_on_walk(data.queries.mean[[row]], data.items.flatten().mean, data.root[None], TraversalConfig())
        names = list(dict.fromkeys(f"h{data.ids.flatten()[step]}.png" for step in steps[0].tolist()))
        assert re.findall(r"<b>(.*?)</b>(<span)?", chart["svg"]) == [
            (name, "<span" if int(name[1]) in data.ids[row] else "") for name in names
        ]


def test_there_is_a_walk_to_every_root():
    data = Hierarchies(
        gaussians(20, 6, seed=0), gaussians(20, 3, 6, seed=1), torch.arange(60).reshape(20, 3), torch.ones(6).double()
    )
    rows = {row.id: row for row in walk_rows(data, TraversalConfig(num_steps=9))}
    for kind, (root, form) in KINDS.items():
        config = TraversalConfig(root=root, inclusion=form, num_steps=9)
        for figure, share in traverse(*data, config)._asdict().items():
            assert rows[RowId(f"walk_{figure}", by=kind)].items == share.tolist()
    mains = [RowId(f"walk_{figure}", by="both_official") for figure in ("precision", "recall")]
    assert [id for id, row in rows.items() if row.main] == mains, "the walk of the paper's Table 2"
    assert [row.main for row in walk_rows(data, with_var=False)] == [True, True, False]


def test_level_figures_of_a_hand_made_example():
    """Four chains of three levels: one falls throughout, one rises, one stays once, one falls and rises."""
    totals = torch.tensor([[4.0, 2.0, 1.0], [1.0, 2.0, 4.0], [4.0, 4.0, 1.0], [4.0, 1.0, 2.0]])
    items = Gaussian(torch.zeros(4, 3, 2), (totals / 2).log()[..., None].expand(4, 3, 2))
    queries = Gaussian(torch.zeros(4, 2), torch.full((4, 2), 0.5).log())  # of total variance 1
    rows = level_rows(Hierarchies(queries, items, torch.arange(12).reshape(4, 3), totals))
    found = {row.id: row for row in rows}
    assert found[RowId("uncertainty_falls")].items == [1.0, 0.0, 0.0, 0.0]
    # Among means that are equal the wider one includes; equally wide ones do not include each other.
    assert found[RowId("level_inclusion", at=0)].items == [1.0, 0.0, 1.0, 1.0]
    assert found[RowId("level_inclusion", at=2)].items == [0.0, 1.0, 0.0, 1.0]
    general = torch.tensor([[2.0, 1.0, 0.0]]).expand(4, 3)
    ranks = torch.corrcoef(torch.stack([mean_ranks(totals.flatten()), mean_ranks(general.flatten())]))
    assert found[RowId("generality_correlation")].value == pytest.approx(float(ranks[0, 1]))
    assert RowId("entailment_auroc", by="uncertainty", other="reversed pairs") in found


FAULTS = {
    "no image": lambda folder: (folder / "h4.png").unlink(),
    "a short row": lambda folder: (folder / "table.csv").write_text((folder / "table.csv").read_text() + "a\n"),
    "broken zip": lambda folder: (folder / "more.zip").write_bytes(b"none"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_data_ends_the_command(fault, world, tmp_path, capsys):
    folder = tmp_path / "hierarchies"
    write_hierarchies(folder)
    FAULTS[fault](folder)
    words = ["--checkpoint", world.ours, *f"--data {folder} --out {tmp_path}/out".split()]
    assert main(["eval", "hierarcaps", *words]) == 2
    assert str(tmp_path) in capsys.readouterr().err
