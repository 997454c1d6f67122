"""`prolip train --help` is one screen of what most runs set; `--help-all` has the rest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from prolip.cli import main
from prolip.train import flags
from prolip.train.config import TrainConfig
from prolip.train.config.help import GROUPS
from prolip.train.config.run import DERIVED_KEYS

SHOWN = [key for keys in GROUPS.values() for key in keys]


def test_the_short_help_has_about_24_keys_with_descriptions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(SHOWN) <= 24
    assert len(lines) < 120
    for key in SHOWN:
        (place,) = [number for number, line in enumerate(lines) if re.match(rf"  (--\w+, )?--{key}(  |$)", line)]
        assert lines[place + 1].startswith("      "), f"{key} has no document"
    assert "  --shards, --data.shards" in lines
    assert "      Peak learning rate." in lines


def test_the_help_shows_the_values_of_the_given_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.toml").write_text('extends = "demo"\nbatch_size = 7\noptim.lr = 0.25\n')
    assert main(["train", str(tmp_path / "mine.toml"), "-h"]) == 0
    told = capsys.readouterr().out
    assert "--batch_size  [7]" in told
    assert "--optim.lr  [0.25]" in told
    assert "--out  [runs/demo]" in told


def test_the_long_help_has_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help-all"]) == 0
    told = capsys.readouterr().out
    keys = flags.flatten(flags.to_table(TrainConfig(), DERIVED_KEYS))
    assert len(keys) > 100
    assert not [key for key in keys if f"--{key}" not in told]
    assert {key for key in SHOWN if not key.startswith("validation.jobs")} <= keys.keys()
