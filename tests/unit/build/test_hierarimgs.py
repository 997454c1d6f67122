"""The table of HierarImgs from small annotations in COCO's layout."""

from pathlib import Path

from tests.support.captioned_sets import write_annotations
from tests.support.refusals import refusal_of

from prolip.build.hierarimgs import build_hierarimgs
from prolip.datasets.data_set import read_levels


def test_the_categories_of_a_rows_images_are_nested_and_its_own_comes_last(tmp_path):
    categories = write_annotations(tmp_path / "coco", 100)
    instances, captions = (tmp_path / "coco" / f"{name}_val2014.json" for name in ("instances", "captions"))
    build_hierarimgs(instances=instances, captions=captions, out=tmp_path / "table.csv")
    levels, texts = read_levels(tmp_path / "table.csv", "images", "caption")
    assert len(levels) > 10
    for names, text in zip(levels, texts, strict=True):
        first, second, third, own = (categories[int(Path(name).stem)] for name in names)
        assert [len(first), len(second), len(third)] == [1, 2, 3]
        assert first < second < third < own
        assert text == f"One, of {Path(names[-1]).stem}."
    for wrong, field in ((captions, "instances"), (tmp_path / "table.csv", str(tmp_path / "table.csv"))):
        with refusal_of(field):
            build_hierarimgs(instances=wrong, captions=captions, out=tmp_path / "other.csv")
