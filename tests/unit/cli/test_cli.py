"""The command line: quick `--help`, and a wrong word is one sentence, not a traceback."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prolip.cli import COMMANDS, main
from prolip.cli.data_build import BUILDERS
from prolip.cli.eval import SUITES
from prolip.data import DataError


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"  {name}" in shown
        assert command.summary in shown
    assert main(["data", "build", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name}" in shown for name in BUILDERS)


WITHIN = [
    *(f"data {name}" for name in ("index", "rank", "filter")),
    *(f"data build {name}" for name in BUILDERS),
    *(f"eval {name}" for name in SUITES),
]


def test_printing_help_does_not_import_torch() -> None:
    code = """
import sys
from prolip.cli import main
for words in sys.argv[1:]:
    assert main([*words.split(), "--help"]) == 0, words
    assert "torch" not in sys.modules, words
"""
    commands = ["", *COMMANDS, *WITHIN]
    subprocess.run([sys.executable, "-c", code, *commands], stdout=subprocess.DEVNULL, check=True)


def test_characters_that_the_terminal_lacks_are_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "läuft").mkdir()
    (tmp_path / "läuft" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="ascii"))
    assert main(["runs", str(tmp_path)]) == 0
    assert rb"l\xe4uft" in printed.getvalue()


def test_a_closed_pipe_ends_quietly() -> None:
    # The list of commands goes to a pipe whose reader is gone.
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "prolip.cli", "--help"]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")


def test_commands_that_run_a_model_keep_freed_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[bool] = []
    monkeypatch.setattr("prolip.cli.command.keep_freed_memory", lambda: called.append(True))
    model = ["--checkpoint", "absent"]
    for words in (
        ["embed", *model, "--out", "out", "--shards", "x.tar"],
        ["bprw", *model, "--shards", "x.tar"],
        *(["eval", name, *model, "--data", "absent"] for name in SUITES),
    ):
        called.clear()
        assert main(words) == 2
        assert called == [True], words


@pytest.mark.parametrize("suite", ["hierarcaps", "hierarimgs"])
@pytest.mark.parametrize("option", ["--walk.root", "--walk.inclusion"])
def test_the_hierarchies_take_no_option_that_changes_nothing(
    suite: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    value = {"--walk.root": "both", "--walk.inclusion": "exact"}[option]  # every root and form is evaluated
    assert main(["eval", suite, "--checkpoint", "absent", "--data", "absent", option, value]) == 2
    assert f"there is no {option}" in capsys.readouterr().err


COLUMNS = 80


def early_ends(page: str) -> list[str]:
    """Lines of a help that end although the next word would have fitted: where the source breaks a line."""
    lines = [line.replace("│", " ").rstrip() for line in page.splitlines()[1:]]  # without the usage
    width = max(len(line) for line in lines if line.startswith(" "))
    found, place, text = [], 0, ""
    for line in lines:
        name = re.match(r" {1,2}\S.*?  +(?=\S)", line)  # an option, with its help behind it
        before, above = place, text
        place = name.end() if name else len(line) - len(line.lstrip())
        text = line[place:]
        goes_on = above and text and not name and place == before and text[0] not in "-─╭╰"
        # What stands above the options may be wider than they are; old versions of tyro wrap it themselves.
        if goes_on and (len(above) > max(width, COLUMNS) or place + len(above) + 1 + len(text.split()[0]) <= width):
            found.append(above)
    return found


@pytest.mark.parametrize("words", [*(f"{name} --help" for name in [*COMMANDS, *WITHIN]), "train --help-all"])
def test_every_command_has_help_and_no_line_of_it_ends_early(
    words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    assert main(words.split()) == 0
    shown = capsys.readouterr().out
    assert f"prolip {words.partition(' --')[0]}" in shown
    assert not early_ends(shown)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "prolip: no command 'trian', did you mean 'train'?"),
        (["data", "build", "emojis"], "prolip data build: no command 'emojis', did you mean 'emoji'?"),
        (["data", "build", "csv", "--table", "absent.csv", "--out", "x"], "absent.csv is not a file"),
        (["eval", "emojis"], "prolip eval: no command 'emojis', did you mean 'emoji'?"),
        (["eval", "emoji", "--checkpoint", "absent.pt", "--data", "."], "absent.pt is neither a file nor a folder"),
        (["report", "absent"], "prolip report: "),
        (["recipes", sys.executable], "is not a recipe, a TOML file"),
    ],
)
def test_user_errors_are_printed_with_status_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_data_errors_are_printed_with_status_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: object) -> None:
        raise DataError("shard bad.tar, byte 0: damaged header")

    monkeypatch.setattr("prolip.evaluation.run.run_suite", damaged)
    assert main(["eval", "emoji", "--checkpoint", "runs/any"]) == 2
    assert "prolip eval emoji: shard bad.tar, byte 0: damaged header" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("not enough values to unpack")

    monkeypatch.setattr("prolip.evaluation.run.run_suite", broken)
    with pytest.raises(ValueError, match="not enough values"):
        main(["eval", "emoji", "--checkpoint", "runs/any"])


def test_system_errors_are_printed_with_status_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    (tmp_path / "names.csv").write_text("image,caption\na.png,a\n")
    words = ["data", "build", "csv", "--table", str(tmp_path / "names.csv"), "--max_bad_fraction", "1"]
    assert main([*words, "--out", str(tmp_path / "a file" / "out")]) == 2
    assert "prolip data build csv: " in capsys.readouterr().err
