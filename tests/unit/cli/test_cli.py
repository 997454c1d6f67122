"""The command line: quick `--help`, and wrong input names its option and rule before anything long begins."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import tomllib

import pytest
from tests.support.images import noise
from tests.support.refusals import refusal_of
from tests.support.shards import encoded, write_tar

from prolip.cli import COMMANDS, main
from prolip.cli.data import COMMANDS as DATA
from prolip.cli.data_build import BUILDERS
from prolip.cli.eval import SUITES
from prolip.data import DataError
from prolip.store.typed_tables import flatten, plain
from prolip.train.config import TrainConfig, load_config, to_toml

ALL = [
    *COMMANDS,
    *(f"data {name}" for name in ("index", "select", "combine", "copy")),
    *(f"data build {name}" for name in BUILDERS),
    *(f"eval {name}" for name in SUITES),
]


def test_every_command_has_help_that_does_not_import_torch():
    code = """
import sys
from prolip.cli import main
for words in sys.argv[1:]:
    print("::", words)
    assert main([*words.split(), "--help"]) == 0, words
    assert "torch" not in sys.modules, words
"""
    shown = subprocess.run([sys.executable, "-c", code, "", *ALL], stdout=subprocess.PIPE, text=True, check=True).stdout
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.summary)}$", shown, re.MULTILINE)
    for name in ALL:
        assert f":: {name}\nusage: prolip {name}" in shown


def test_the_help_of_training_has_every_key(capsys):
    assert main(["train", "--help"]) == 0
    shown = set(re.findall(r"--([a-z_.0-9]+)", capsys.readouterr().out))
    keys = set(flatten(tomllib.loads(to_toml(TrainConfig()))))
    assert keys - shown == {"data.native", "validation.jobs"}, "a table without a key, and a list that is empty"
    assert {"data.native.seq_lens", "shards"} <= shown


def test_a_repeated_key_of_a_run_does_the_same():
    for key, value in flatten(plain(TrainConfig())).items():
        if not isinstance(value, list):
            with refusal_of(key):
                load_config(f"demo --{key} 1 --other --{key}=1".split())
    shards = ["--shards", "a", "b", "--seed", "3", "--data.shards=c", "--shards", "d"]
    assert load_config(["demo", *shards]).data.shards == ("a", "b", "c", "d")


def test_a_repeated_option_of_a_command_is_an_error(capsys):
    assert main(["data", "index", "--shards", "a", "--shards", "b", "--out", "c", "--out", "d"]) == 2
    assert "out" in capsys.readouterr().err


def test_characters_that_the_terminal_lacks_are_escaped(tmp_path, monkeypatch):
    (tmp_path / "läuft").mkdir()
    row = {"step": 1, "samples": 8, "loss": 2.0}
    (tmp_path / "läuft" / "metrics.jsonl").write_text(json.dumps(row))
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="ascii"))
    assert main(["report", str(tmp_path / "läuft")]) == 0
    assert rb"l\xe4uft" in printed.getvalue()


def test_a_closed_pipe_ends_quietly():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "prolip.cli", "--help"]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A folder with an image, class folders and a shard, in which commands run."""
    noise(1).save(tmp_path / "cat.png")
    (tmp_path / "classes" / "cats").mkdir(parents=True)
    noise(1).save(tmp_path / "classes" / "cats" / "cat.png")
    write_tar(tmp_path / "a.tar", [("0.png", encoded((1, 2, 3))), ("0.json", json.dumps({"group": "a"}).encode())])
    (tmp_path / "list.txt").write_text("# two\na.tar\nabsent\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("trian", "trian"),
        ("data build emojis", "emojis"),
        ("eval emojis", "emojis"),
        ("recipes absent", "absent"),
        ("report absent", "absent"),
        ("train demo --optim.lrr 1", "optim.lr"),
        ("train demo --shards absent", "data.tokenizer.path"),
        ("data build csv --table absent.csv --out x", "absent.csv"),
        ("data build csv --table absent.csv --out a.tar/x", "absent.csv"),
        ("data index --out made.index --shards absent", "shards"),
        ("data index --out made.index --shards list.txt", "line 3"),
        ("data index --out made.index --shards a.tar --store.connections 0", "store.connections"),
        ("demo --data a.tar --out run", "a.tar"),
        ("embed --checkpoint no-model --text absent", "--out"),
        ("embed --checkpoint no-model --shards a.tar --out made --threads -1", "threads"),
        ("embed --checkpoint no-model --shards a.tar --out .", "out"),
        ("embed --checkpoint no-model --shards pipe:true --out made", "shards"),
        ("embed --checkpoint no-model --shards a.tar --out made --what both --caption_key a..b", "caption_key"),
        ("classify cat.png a b --checkpoint no-model --tokenizer absent.json", "tokenizer"),
        ("classify cat.png a b --checkpoint no-model --calibration absent", "absent"),
        ("classify cat.png a b --checkpoint no-model --templates photo", "photo"),
        ("classify cat.png a b --checkpoint no-model --prior 1", "prior"),
        ("classify cat.png --checkpoint no-model --guarantee 3", "guarantee"),
        ("compare cat.png a --checkpoint no-model --tokenizer absent.json", "tokenizer"),
        ("export no-model --out made --tokenizer absent.json", "tokenizer"),
        ("explore --checkpoint no-model --shards absent.tar", "absent.tar"),
        ("explore --checkpoint no-model --calibration absent", "absent"),
        ("calibrate --checkpoint no-model --data classes --templates photo --out made", "photo"),
        ("eval zero_shot --checkpoint no-model --data absent", "data"),
        ("eval retrieval --checkpoint no-model --data absent.tar", "data"),
        ("eval hierarcaps --checkpoint no-model --data absent", "data"),
        ("eval zero_shot --checkpoint no-model --data . --few_shot.alpha 0", "few_shot.alpha"),
        ("eval zero_shot --checkpoint no-model --data classes --batch_size many", "batch_size"),
    ],
)
def test_a_wrong_word_is_named_before_a_model_is_opened(words, named, lab, capfd, caplog):
    assert main(words.split()) == 2
    said = capfd.readouterr().err + caplog.text
    assert named in said
    assert "Traceback" not in said
    assert "no-model is neither" not in said


@pytest.mark.parametrize("error", [DataError("a.tar, byte 0: damaged header"), PermissionError(13, "refused", "a.tar")])
def test_errors_of_data_and_files_are_one_line(error, capsys, monkeypatch):
    def damaged(*_):
        raise error

    monkeypatch.setattr("prolip.evaluation.evaluate.run_suite", damaged)
    assert main(["eval", "zero_shot", "--checkpoint", "runs/any", "--data", "."]) == 2
    assert capsys.readouterr().err.startswith("prolip eval zero_shot: a.tar")


def test_a_bug_keeps_its_traceback(monkeypatch):
    def broken(*_):
        raise ValueError("not enough values to unpack")

    monkeypatch.setattr("prolip.evaluation.evaluate.run_suite", broken)
    with pytest.raises(ValueError, match="not enough values"):
        main(["eval", "zero_shot", "--checkpoint", "runs/any", "--data", "."])


def test_an_unknown_command_or_suite_is_answered_with_what_is_near(capsys):
    for words, near in ("clasify", "classify"), ("eval zeroshot", "zero_shot"), ("data ranks", ", ".join(DATA)):
        assert main(words.split()) == 2
        assert near in capsys.readouterr().err
    assert main([]) == 0
    assert " | ".join(DATA) in capsys.readouterr().out
