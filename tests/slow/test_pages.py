"""The code in README and docs runs: every Python, console and TOML block, a page in a folder, beside a hub of its own.

What a page takes for granted is made in `page_worlds`; how its commands run is told in `page_commands`. A block that
cannot run stands under `<!-- parsed only: REASON -->`: the real parsers read every word of it.
"""

import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tests.slow import page_commands
from tests.slow.page_worlds import PREPARE, names_for
from tests.support.hub import serving

from prolip.train.config import load_config

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)]
# Figures, tables of contents and API: the build of the documentation runs them, and fails where one cannot be made.
DIRECTIVE = re.compile(r"^```\{[\w-]+\}\n.*?^```$", re.M | re.S)
FENCE = re.compile(r"^(?:<!-- (?P<mark>[^\n]*?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
MARK = "parsed only: "
SHELLS, LANGUAGES = {"console", "sh"}, {"console", "sh", "python", "toml", "text"}
BUILTINS = {"export", "eval"}


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str
    parsed_only: bool

    def __str__(self):
        return f"{self.page}:{self.line}"


def blocks(page):
    text = DIRECTIVE.sub(lambda match: "\n" * match[0].count("\n"), page.read_text(encoding="utf-8"))
    found = []
    for match in FENCE.finditer(text):
        mark = match["mark"]
        assert mark is None or mark.startswith(MARK), f"{page.name}: <!-- {mark} --> is no known mark"
        line = text.count("\n", 0, match.start("text"))
        found.append(Block(page.name, line, match["language"], match["text"], mark is not None))
    assert len(found) == text.count("```") // 2, f"{page.name} has a fence that was not understood"
    return found


def commands(block):
    """The words of each command of a block of a shell; what it prints is passed over.

    Of many shards there are two, and what lies in folders of the root lies in the page's folder.
    """
    text = re.sub(r"\{(0+)0\.\.\d+\}", r"{\g<1>0..\g<1>1}", block.text.replace("\\\n", " "))
    text = re.sub(r"(?<=[ '])/(?=(shared|data)/)", "", text)
    lines = text.splitlines()
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    found = []
    for line in lines:
        for command in line.split(" && "):
            if words := shlex.split(command, comments=True):
                found.append(words)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_code_block_of_a_page_runs(page, tmp_path, monkeypatch):
    code = blocks(page)
    if not code:
        return
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("DAFT_RUNNER", "native")  # else it keeps the Ray that another page has shut down
    prepare = PREPARE.get(page.name)
    if prepare is not None:
        prepare(tmp_path, monkeypatch)
    given = names_for(page.name)
    threads = torch.get_num_threads()
    try:
        with serving(tmp_path, tmp_path / "cache"):
            for block in code:
                (parse if block.parsed_only else run)(block, given)
    finally:
        torch.set_num_threads(threads)
        if "ray" in sys.modules:
            sys.modules["ray"].shutdown()


def run(block, given):
    """Python with the names of the page's blocks before; commands one after the other; a recipe is read."""
    assert block.language in LANGUAGES, f"{block} is {block.language or 'of no language'}"
    if block.language == "python":
        exec(compile(block.text, str(block), "exec"), given)
    elif block.language == "toml":
        path = Path(f"{Path(tomllib.loads(block.text)['out']).name}.toml")
        path.write_text(block.text, encoding="utf-8")
        load_config([str(path)])
    elif block.language in SHELLS:
        for words in commands(block):
            told(block, words, page_commands.run)


def parse(block, _):
    if block.language == "python":
        compile(block.text, str(block), "exec")
        return
    assert block.language in SHELLS, f"{block}: only commands and Python can be parsed without being run"
    lines = block.text if block.language == "sh" else "\n".join(map(shlex.join, commands(block)))
    subprocess.run(["bash", "-n"], input=lines, text=True, check=True)
    for words in commands(block):
        if words[0] not in BUILTINS:
            told(block, words, page_commands.parse)


def told(block, words, do):
    try:
        do(words)
    except (Exception, SystemExit) as error:
        raise AssertionError(f"{block}: {shlex.join(words)}") from error


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_flags_in_the_prose_exist(page):
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    flags = page_commands.known_flags()
    for span in re.findall(r"`([^`]+)`", prose):
        words = span.split()
        if words[:1] == ["prolip"] and words[1:] and words[1].islower() and not words[1].startswith("-"):
            name = next((" ".join(words[1:end]) for end in (4, 3, 2) if " ".join(words[1:end]) in flags), None)
            group = " ".join(words[1:])  # such as `prolip data build`, or `prolip eval SUITE`
            known = flags[name] if name else flags[""]
            assert name or any(f"{one} ".startswith(f"{group.split(' SUITE')[0]} ") for one in flags), f"no {span}"
        elif span.startswith("--"):
            known = flags[""]
        else:
            continue
        for flag in re.findall(page_commands.FLAG, span):
            stem = flag.rstrip(".")
            some = stem != flag and any(one.startswith(f"{stem}.") for one in known)  # such as `--model....`
            assert some or flag in known | {"--help"}, f"{page.name}: `{span}` has {flag}, which there is not"
