"""`Embed` beside the model itself. docs/how-to/engines.md runs it in Ray Data and Daft."""

import numpy as np
import pyarrow as pa
import pytest
from tests.support.images import noise
from tests.support.refusals import refusal_of
from tests.support.untrained_run import write_run

import prolip
from prolip.interop import Embed


def objects(rows):
    return np.array(rows, object)


@pytest.fixture
def run(tmp_path):
    write_run(tmp_path / "run", tmp_path / "tokenizer.json", context_length=20)
    return tmp_path / "run"


@pytest.mark.parametrize("column", [list, objects, pa.array])
def test_a_pickled_embed_equals_the_model_and_a_bad_row_loses_nothing_else(run, column):
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    path = run / "a.png"
    noise(1).save(path)
    texts = ["a", None, "an animal", "food"]
    bad = {"bytes": (path.read_bytes(), b"no image"), "image": (str(path), str(run / "none.png"))}
    sent = cloudpickle.dumps(Embed(str(run), device="cpu", batch_size=3, log_var=True))
    assert len(sent) < 500
    embed, model = cloudpickle.loads(sent), prolip.load(run, device="cpu")
    for name, (good, wrong) in bad.items():
        found = embed({name: column([good, wrong, None, good]), "text": column(texts), "key": [7, 8, 9, 10]})
        assert found["key"] == [7, 8, 9, 10]
        assert ("bytes" in found, "image" in found) == (False, name == "image")
        for prefix, rows, expected in (
            ("", [0, 3], model.encode_images([path, path])),
            ("text_", [0, 2, 3], model.encode_texts(["a", "an animal", "food"])),
        ):
            for number in ("mean", "log_var", "total_var"):
                numbers = found[prefix + number]
                np.testing.assert_allclose(numbers[rows], getattr(expected, number), rtol=1e-5, atol=1e-6)
                assert np.isnan(np.delete(numbers, rows, axis=0)).all()
            assert [row for row, error in enumerate(found[f"{prefix}error"]) if not error] == rows


def test_an_empty_batch_has_the_shape_of_others(run):
    found = Embed(str(run), device="cpu")({"text": []})
    assert {name: column.shape for name, column in found.items() if name != "text"} == {
        "mean": (0, 32),
        "total_var": (0,),
        "error": (0,),
    }


@pytest.mark.parametrize("columns", [("bytes", "image", "text"), ("key",)])
def test_columns_that_are_wrong_are_named(columns):
    with refusal_of("batch"):
        Embed("none")({name: [] for name in columns})
