"""The code in README, tutorial, docs/how-to and docs/concepts runs: every Python and console block, a page in a folder.

A block that cannot run here stands under `<!-- not run: REASON -->`: Python is still compiled, `prolip` commands still
named ones. What makes a run long is made short by `SHORTER`.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from PIL import Image, ImageDraw
from tests.unit.eval.sample_tasks import TASKS, write_open_clip, write_task
from tests.unit.sample_run import write_run
from tests.unit.sample_shards import encoded, write_tar

from prolip import cli
from prolip.config import load_config
from prolip.gaussian import Gaussian

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    DOCS / "tutorial.md",
    DOCS / "model-zoo.md",
    *sorted((DOCS / "how-to").glob("*.md")),
    *sorted((DOCS / "concepts").glob("*.md")),
]
# Figures that the build of the documentation draws; it fails where one cannot be drawn.
FIGURE = re.compile(r"^```\{eval-rst\}\n\.\. plot:: .*?^```$", re.M | re.S)
FENCE = re.compile(r"^(?:<!-- (?P<mark>[^\n]*?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
SHORTER = {"--num_samples 6400 --batch_size 16": "--num_samples 128 --batch_size 16", "--optim.warmup_steps 20": ""}
SHELLS, LANGUAGES = {"console", "sh"}, {"console", "sh", "python", "toml", "text"}


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str
    not_run: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = FIGURE.sub("", page.read_text(encoding="utf-8"))
    found = []
    for match in FENCE.finditer(text):
        mark = match["mark"]
        assert mark is None or mark.startswith("not run: "), f"{page.name}: <!-- {mark} --> is no known mark"
        line = text.count("\n", 0, match.start("text"))
        found.append(Block(page.name, line, match["language"], match["text"], mark))
    assert len(found) == text.count("```") // 2, f"{page.name} has a fence that was not understood"
    return found


def commands(block: Block) -> list[list[str]]:
    """The words of each command of a console block; what it prints is passed over."""
    text = block.text.replace("\\\n", " ")
    for long, short in SHORTER.items():
        text = text.replace(long, short)
    lines = text.splitlines()
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    found: list[list[str]] = []
    for line in lines:
        for command in line.split(" && "):
            if words := shlex.split(command, comments=True):
                found.append(words)
    return found


# ---- what a page finds in its folder --------------------------------------------------------------------------------


def pictures(folder: Path) -> None:
    """Four class folders of ten pictures, pictures beside their texts, and a table."""
    rows = ["image,caption"]
    for colour in ("red", "green", "blue", "yellow"):
        for number in range(10):
            picture = Image.new("RGB", (40, 40), "white")
            shape = "circle" if number % 2 else "square"
            draw = ImageDraw.Draw(picture)
            (draw.ellipse if number % 2 else draw.rectangle)((4, 4, 20 + number, 20 + number), fill=colour)
            for place in (folder / "pictures" / f"{colour}_{shape}", folder / "paired"):
                place.mkdir(parents=True, exist_ok=True)
                picture.save(place / f"{colour}{number}.png")
            (folder / "paired" / f"{colour}{number}.txt").write_text(f"a {colour} {shape}")
            rows.append(f"paired/{colour}{number}.png,a {colour} {shape}")
    (folder / "table.csv").write_text("\n".join(rows))


def shards(folder: Path) -> None:
    pictures(folder)
    words = ["data", "build", "folder", "--source", "pictures", "--out", "data/mine", "--val_share", "0.2"]
    assert cli.main(words) == 0


def emoji_run(folder: Path) -> None:
    """A run of a tiny model, and pictures with groups, named as the demo's are."""
    data = folder / "data" / "emoji"
    data.mkdir(parents=True)
    write_run(folder / "runs" / "demo", data / "tokenizer.json", context_length=20)
    samples = []
    for number, group in enumerate(["animals and nature", "food and drink", "travel"] * 5):
        samples += [
            (f"{number:03}.png", encoded((number * 9, 40, 200 - number * 9))),
            (f"{number:03}.json", json.dumps({"group_text": group}).encode()),
        ]
    write_tar(data / "test-openmoji-000.tar", samples)
    pictures(folder)


def emoji_shards(folder: Path) -> None:
    """A few of the shards that `prolip data build emoji` writes, and a tokenizer."""
    data = folder / "data" / "emoji"
    data.mkdir(parents=True)
    write_run(folder / "runs" / "other", data / "tokenizer.json", context_length=20)
    samples = []
    for number in range(64):
        captions = {level: [f"a picture of {level}"] for level in ("name", "subgroup", "group", "picture")}
        samples += [
            (f"{number:03}.png", encoded((number * 3, 40, 200 - number * 3))),
            (f"{number:03}.json", json.dumps({"captions": captions}).encode()),
        ]
    write_tar(data / "train-000.tar", samples)


def suites(folder: Path) -> None:
    """A run, a small model of open_clip, and small data sets in the published layout."""
    emoji_run(folder)
    write_open_clip(folder / "models" / "clip")
    for key in (
        "cifar10",
        "imagenet1k",
        "imagenet-a",
        "wilds/fmow",
        "misc/winogavil",
        "retrieval/flickr_1k_test_image_text_retrieval",
    ):
        write_task(folder / "data" / "datacomp", TASKS[key], count=40)


def a_run(folder: Path) -> None:
    """A run to hand on."""
    write_run(folder / "runs" / "mine", folder / "tokenizer.json", context_length=20)


PREPARE: dict[str, Callable[[Path], None]] = {
    "README.md": emoji_run,
    "evaluate.md": suites,
    "embed-and-search.md": emoji_run,
    "rank-a-data-set.md": emoji_run,
    "iterable-dataset.md": shards,
    "open-clip.md": shards,
    "prompt-weights.md": emoji_run,
    "remote-shards.md": shards,
    "loader.md": shards,
    "start-from-clip.md": a_run,
    "tutorial.md": emoji_shards,
    "watch-a-run.md": shards,
    "your-own-pictures.md": pictures,
}


def names_for(page: str) -> dict[str, Any]:
    """What a page's Python takes as given."""
    if page == "start-from-clip.md":
        vision = {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16}
        text = {"context_length": 12, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1}
        return {"mine": open_clip.CLIP(16, vision, text)}
    if page != "prompt-weights.md":
        return {}
    generator = torch.Generator().manual_seed(0)
    mean = torch.nn.functional.normalize(torch.randn(3, 5, 16, generator=generator), dim=-1)
    images = torch.nn.functional.normalize(torch.randn(20, 16, generator=generator), dim=-1)
    return {
        "prompts": Gaussian(mean, torch.full_like(mean, -5.0)),
        "images": Gaussian(images, torch.full_like(images, -5.0)),
    }


# ---- the tests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_is_of_a_known_language(page: Path) -> None:
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block} is {block.language or 'of no language'}"
        if block.language == "python":
            compile(block.text, str(block), "exec")
        if block.language == "toml":
            tomllib.loads(block.text)
        if block.language in SHELLS:
            for words in commands(block):
                assert words[0] != "prolip" or words[1] in cli.COMMANDS, f"{block}: no command {words[1]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_as_it_stands(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    PREPARE.get(page.name, lambda _: None)(tmp_path)
    given = names_for(page.name)
    threads = torch.get_num_threads()
    try:
        for block in blocks(page):
            if block.not_run is None:
                run(block, given)
    finally:
        torch.set_num_threads(threads)


def run(block: Block, given: dict[str, Any]) -> None:
    """Python with the names of the page's blocks before; commands in this process."""
    if block.language == "python":
        exec(compile(block.text, str(block), "exec"), given)
    elif block.language == "toml":
        path = Path(f"{tomllib.loads(block.text)['name']}.toml")
        path.write_text(block.text, encoding="utf-8")
        load_config([str(path)])
    elif block.language in SHELLS:
        for words in commands(block):
            if words[0] == "python":
                assert words[1] == "vocabulary.py", f"{block}: a saved block ran where it stands"
            else:
                assert words[0] == "prolip", f"{block}: {words[0]} cannot be run here: mark the block"
                # Other tests run beside this one, and not every CPU multiplies bf16.
                gently = ["--cpu_threads", "1", "--precision", "fp32"] if words[1] == "train" else []
                assert cli.main([*words[1:], *gently]) == 0, f"{block}: {shlex.join(words)}"
