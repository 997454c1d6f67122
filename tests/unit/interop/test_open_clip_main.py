"""open_clip's main branch (to become 4.0), which trains tasks: a stand-in with its interface, fed by the loader.

No registry has that branch; `tests/support/open_clip_main` has its interface, written anew. A job of the CI runs
test_open_clip.py with the branch itself.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from tests.support.shards import encoded, write_tar

from prolip.data import LoaderConfig
from prolip.data.config import TokenizerConfig
from prolip.interop import open_clip as adapter

pytestmark = pytest.mark.skipif(find_spec("open_clip.task") is not None, reason="this is the main branch")
STAND_IN = Path(__file__).resolve().parents[2] / "support" / "open_clip_main"
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49_408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of four samples, and a model's configuration."""
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(2):
        members = [(f"{shard}{number}", (60 * shard, 50 * number, 9)) for number in range(4)]
        entries = [(f"{key}.png", encoded(colour)) for key, colour in members]
        write_tar(folder / f"{shard:03}.tar", sorted(entries + [(f"{key}.txt", key.encode()) for key, _ in members]))
    (folder / "prolip-test-tasks.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "prolip-test-tasks.json")
    return folder


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stand-in's command, in place of the installed open_clip_train; and `open_clip.task`."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "open_clip_train"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(STAND_IN)
    monkeypatch.setattr(open_clip, "__path__", [*open_clip.__path__, str(STAND_IN / "open_clip")])
    yield import_module("open_clip_train.main")
    for name in [name for name in sys.modules if name.startswith(("open_clip_train", "open_clip.task"))]:
        del sys.modules[name]


def words(folder: Path, logs: Path, **flags: str | int) -> list[str]:
    given: dict[str, str | int] = {
        "model": "prolip-test-tasks",
        "train-data": str(folder / "{000..001}.tar"),
        "dataset-type": "webdataset",
        "batch-size": 2,
        "workers": 1,
        "epochs": 1,
        "precision": "fp32",
        "device": "cpu",
        "logs": str(logs),
    }
    return [word for name, value in (given | flags).items() for word in (f"--{name}", str(value))]


def seen(state: Any) -> list[tuple[int, ...]]:
    """The samples that a run was trained on, by their captions."""
    return [tuple(row) for texts in state.texts for row in texts.tolist()]


def captions(*shards: int) -> set[tuple[int, ...]]:
    """Those of the samples of some shards."""
    texts = [f"{shard}{number}" for shard in shards for number in range(4)]
    return {tuple(row) for row in open_clip.SimpleTokenizer(context_length=12)(texts).tolist()}


@pytest.mark.parametrize("accum_freq", [1, 2])
def test_open_clips_command_trains_on_the_loader_and_resumes(
    main: Any, folder: Path, tmp_path: Path, accum_freq: int
) -> None:
    assert adapter.main([*words(folder, tmp_path, **{"accum-freq": accum_freq, "epochs": 2})]) == 0
    (state,) = main.STATES
    assert (state.global_step, state.samples_seen) == (8 // accum_freq, 16)
    first, second = seen(state)[:8], seen(state)[8:]
    assert set(first) == set(second) == captions(0, 1), "every sample once an epoch"
    assert first != second
    assert all(0 < loss < 10 for loss in state.losses)
    assert main.get_data.__module__ == "open_clip_train.data", "the command has its own function back"
    saved = tmp_path / "run" / "checkpoints" / "epoch_1.pt"
    more = words(folder, tmp_path, **{"accum-freq": accum_freq, "epochs": 2, "resume": str(saved), "name": "more"})
    assert adapter.main(more) == 0
    assert seen(main.STATES[1]) == second, "it goes on with the second epoch"


def test_open_clips_main_evaluates_on_the_loader(main: Any, folder: Path) -> None:
    loop, task = import_module("open_clip_train.train"), import_module("open_clip.task")
    config = LoaderConfig(
        shards=(str(folder / "*.tar"),),
        image_size=32,
        batch_size=3,
        last_batch="keep",
        shuffle_window=0,
        tokenizer=TokenizerConfig(context_length=12),
    )
    data = {"val": adapter.open_clip_data(config)}
    args = main.parse_args(words(folder, Path()))
    model = task.CLIPTask(open_clip.CLIP(**TINY, output_dict=True))
    assert loop.evaluate(model, data, 1, args) == {"num_samples": 8}


def test_a_manifest_of_several_data_sets_is_trained_on(main: Any, folder: Path, tmp_path: Path) -> None:
    """Its command makes lists of it, before it asks for the data."""
    sources = [
        {"shards": str(folder / "000.tar"), "samples": 4, "sampling_weight": 1.0},
        {"shards": str(folder / "{001..001}.tar"), "samples": 4, "sampling_weight": 0.0},
    ]
    mix = tmp_path / "mix.json"
    mix.write_text(json.dumps({"version": 1, "sources": sources}))
    assert adapter.main(words(folder, tmp_path, **{"train-data": str(mix)})) == 0
    assert set(seen(main.STATES[0])) == captions(0, 1), "without resampling weights are not used"
    drawn = [*words(folder, tmp_path, **{"train-data": str(mix), "name": "drawn"}), "--dataset-resampled"]
    assert adapter.main(drawn) == 0
    assert main.STATES[1].samples_seen == 8
    assert set(seen(main.STATES[1])) == captions(0), "only the shards that have a weight"


def test_validation_data_are_read_by_open_clip(main: Any, folder: Path, tmp_path: Path) -> None:
    args = main.parse_args([*words(folder, tmp_path), "--val-data", "val.tar"])
    transforms = open_clip.create_model_and_transforms("prolip-test-tasks")[1:]
    data = adapter.get_data(args, transforms, 3, open_clip.get_tokenizer("prolip-test-tasks"), naflex_data_config=None)
    assert data["val-of-open-clip"] == "val.tar"
    batch = next(iter(data["train"].dataloader))
    assert list(batch) == ["image", "text"]
    assert (batch["image"].shape, batch["image"].dtype) == ((2, 3, 32, 32), torch.float32)
    assert (batch["text"].shape, batch["text"].dtype) == ((2, 12), torch.int64)


@pytest.mark.parametrize(
    "flags", [["--use-naflex"], ["--length-bucketing"], ["--text-key", "txt;caption"], ["--json-text-key", "caption"]]
)
def test_unsupported_flags_of_open_clips_main_are_refused(
    main: Any, folder: Path, tmp_path: Path, flags: list[str]
) -> None:
    with pytest.raises(ValueError, match=f"^{flags[0]} is .*: the loader does not support it in open_clip's command"):
        adapter.main([*words(folder, tmp_path), *flags])
    assert main.get_data.__module__ == "open_clip_train.data"


def test_dataset_types_other_than_webdataset_are_refused(main: Any, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--dataset-type is webdataset-audio: the loader only reads webdataset"):
        adapter.main(words(folder, tmp_path, **{"dataset-type": "webdataset-audio"}))
    assert main.STATES == []
