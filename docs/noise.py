"""Select samples of noisy pairs: the runs and the table on the demo's data with wrong captions.

    python docs/noise.py prepare     # exchange captions, train the reference on a clean tenth, embed
    python docs/noise.py run         # train and evaluate the runs that do not exist yet
    python docs/noise.py table       # print the table of the existing runs, as Markdown

A share of the training samples has exchanged captions. Other `--steps` make other runs.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import tyro
from studies import print_table, run_module, spread

from prolip.demo.run import RESULTS, evaluate, machine_flags
from prolip.demo.suite import RIGHT
from prolip.store.selection import Chosen, write_selection
from prolip.train import loop
from prolip.train.config import load_config
from prolip.train.cost import mean_step_flops

TENTH = 0.1
KEPT = {"all": 1.0, "selection": 0.5, "a quarter": 0.25}
"""Share that a method trains on: the samples that the reference finds nearest to their captions."""
SMALLER = ("--model.vision.patch_size", "9", "--model.vision.layers", "2")
_GROUPS, _NAMES = f"{RIGHT}: group, held-out emoji", f"{RIGHT}: names, trained emoji, Twemoji"
MEASURES = {
    "group": f"{_GROUPS}, OpenMoji: accuracy",
    "group, held-out design": f"{_GROUPS}, Twemoji: accuracy",
    "right caption in the first 10, held-out design": f"{_NAMES}: image to name R@10",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The study of noisy pairs."""

    command: tyro.conf.Positional[Literal["prepare", "run", "table"]]
    """Make data and reference, train and evaluate, or print the table."""
    out: Path = Path("runs/noise")
    """Folder of data and runs."""
    data: Path = Path("data/emoji")
    """What `prolip data build emoji` wrote."""
    shares: tuple[float, ...] = (0.0, 0.3, 0.6)
    """Shares of exchanged captions."""
    seeds: int = 3
    steps: int = 500
    batch: int = 128
    methods: tuple[str, ...] = tuple(KEPT)

    def noisy(self, share: float) -> Path:
        """Folder of shards with this share of exchanged captions."""
        return self.out / f"data-{share:g}"

    def folder(self, method: str, share: float, seed: int) -> Path:
        """Folder of a run."""
        return self.out / f"{method}-{share:g}-{seed}-{self.steps}"

    def selection(self, method: str, share: float) -> Path:
        """What a method trains on."""
        return self.out / f"{method}-{share:g}.parquet"


def prepare(options: Options) -> None:
    """Write noisy shards, train the reference on a clean tenth of the samples, and embed all shards with it."""
    for share in options.shares:
        exchange(options.data, options.noisy(share), share)
    clean, reference, draws = options.noisy(0.0), options.folder("reference", 0.0, 0), np.random.default_rng(0)
    exchange(options.data, clean, 0.0)
    counts = {shard: sum(name.endswith(".json") for name, _ in members(shard)) for shard in clean.glob("train-*.tar")}
    rows = {shard: np.flatnonzero(draws.random(count) < TENTH).astype(np.uint32) for shard, count in counts.items()}
    write_selection(options.selection("reference", 0.0), (Chosen(str(shard), "", some) for shard, some in rows.items()))
    loop.main(arguments("reference", 0.0, 0, options))
    for share in options.shares:
        folder, out = options.noisy(share), options.out / f"embedded-{share:g}"
        what = ("--what", "both", "--caption_key", "captions.name", "--shards", f"{folder}/train-*.tar", "--out", out)
        run_module("prolip.cli", "embed", "--checkpoint", reference, *what)
        for method in ("selection", "a quarter"):
            by = ("--by", "csd", "--keep_share", KEPT[method], "--out", options.selection(method, share))
            run_module("prolip.cli", "data", "select", "--embeddings", out, *by)


def exchange(source: Path, target: Path, share: float) -> None:
    """Copy the training shards, with the captions of a drawn share of the samples exchanged among these."""
    if (target / "wrong.json").exists():
        return
    target.mkdir(parents=True, exist_ok=True)
    shards = sorted(source.glob("train-*.tar"))
    records = {name: json.loads(data) for shard in shards for name, data in members(shard) if name.endswith(".json")}
    draws, names = np.random.default_rng(0), np.array(sorted(records))
    drawn = draws.permutation(names)[: int(share * len(names))].tolist()
    captions = {name: records[name]["captions"] for name in names.tolist()}
    moved = captions | {one: captions[other] for one, other in zip(drawn, [*drawn[1:], *drawn[:1]], strict=True)}
    for shard in shards:
        with tarfile.open(target / shard.name, "w") as tar:
            for name, data in members(shard):
                content = json.dumps(records[name] | {"captions": moved[name]}).encode() if name in records else data
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    shutil.copy(source / "tokenizer.json", target)
    wrong = [Path(name).stem for name in drawn if moved[name]["name"] != captions[name]["name"]]
    (target / "wrong.json").write_text(json.dumps(wrong))


def members(shard: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a shard's members."""
    with tarfile.open(shard) as tar:
        for entry in tar:
            if (file := tar.extractfile(entry)) is not None:
                yield entry.name, file.read()


def arguments(method: str, share: float, seed: int, options: Options) -> list[str]:
    """Return the arguments of `prolip train` for a run: on one core, with a single checkpoint at the end."""
    data, steps = options.noisy(share), options.steps
    read = ["--data.shards", f"{data}/train-*.tar", "--data.tokenizer.path", f"{data}/tokenizer.json"]
    if method != "all":
        read += ["--data.selection", str(options.selection(method, share))]
    place = ["--out", str(options.folder(method, share, seed)), "--cpu_threads", "1", "--data.num_threads", "1"]
    length = ["--samples_seen", str(steps * options.batch), "--batch_size", str(options.batch)]
    length += ["--checkpoint_every", str(steps)]
    return ["demo", "--seed", str(seed), *length, *place, *SMALLER, *machine_flags(), *read]


def cost(words: list[str]) -> float:
    """FLOPs of a run."""
    config = load_config(words)
    return config.total_steps * float(mean_step_flops(config).total)


def run(options: Options) -> None:
    """Train and evaluate every method, except runs that exist already, and note the share of wrong pairs trained on."""
    take_step = loop.take_step
    for seed in range(options.seeds):
        for share in options.shares:
            wrong = set(json.loads((options.noisy(share) / "wrong.json").read_text(encoding="utf-8")))
            for method in options.methods:
                place, seen = options.folder(method, share, seed), [0, 0]
                if (place / RESULTS).exists():
                    continue

                def counted(run: loop.Run, batch: Any, wrong: set[str] = wrong, seen: list[int] = seen) -> Any:
                    seen[0] += sum(key in wrong for key in batch.keys)
                    seen[1] += len(batch.keys)
                    return take_step(run, batch)

                words = arguments(method, share, seed, options)
                with mock.patch.object(loop, "take_step", counted):
                    loop.main(words)
                told = {"wrong": seen[0] / seen[1], "flops": cost(words)}
                (place / "noise.json").write_text(json.dumps(told))
                evaluate(place, options.data, place / RESULTS)


def table(options: Options) -> None:
    """Print a row per share and method: the measures and the wrong pairs in percent, the cost in TFLOPs."""
    rows = []
    for share in options.shares:
        for method in options.methods:
            places = [options.folder(method, share, seed) for seed in range(options.seeds)]
            found = [place for place in places if (place / RESULTS).exists()]
            if not found:
                continue
            figures = [read(place / RESULTS) for place in found]
            told = [json.loads((place / "noise.json").read_text(encoding="utf-8")) for place in found]
            shown = [spread([100 * one[key] for one in figures]) for key in MEASURES.values()]
            trained = spread([100 * one["wrong"] for one in told])
            rows.append([f"{share:.0%}, {method}", *shown, trained, f"{told[0]['flops'] / 1e12:.1f}"])
    print_table(["wrong captions, method", *MEASURES, "wrong pairs trained on", "TFLOPs"], rows)


def read(path: Path) -> dict[str, float]:
    """The value of each figure of results.json."""
    figures = json.loads(path.read_text(encoding="utf-8"))["figures"]
    return {f"{one['task']}: {one['metric']}": next(iter(one["value"].values())) for one in figures}


if __name__ == "__main__":
    chosen = tyro.cli(Options, use_underscores=True)
    {"prepare": prepare, "run": run, "table": table}[chosen.command](chosen)
