"""Print the licences of all that is linked into the extension: `python rust/licences.py > THIRD_PARTY_LICENSES.txt`.

A crate that offers the Apache License is used under it, and that text stands once. The licences of all other crates are
copied. Crates with the same text stand together.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LICENCE = re.compile(r"(?i)(un)?licen[cs]e|copying|copyright|notice")
APACHE = re.compile(r"(?i)licen[cs]e-apache")
BUNDLED = {
    "libwebp-sys": ["vendor/COPYING", "vendor/PATENTS"],
    "regex-syntax": ["src/unicode_tables/LICENSE-UNICODE"],
    "ring": ["third_party/fiat/LICENSE"],
    "tracing-core": ["src/spin/LICENSE"],
    "turbojpeg-sys": ["libjpeg-turbo/LICENSE.md"],
    "zstd-sys": ["zstd/LICENSE"],
}
"""Other people's code inside of crates, the C libraries above all."""
HEAD = """\
The extension of prolip contains these libraries. NOTICE says which are written in C.
`python rust/licences.py > THIRD_PARTY_LICENSES.txt` writes this file.

Under the Apache License, Version 2.0, whose text comes first: the standard library of Rust and
"""


def main() -> None:
    """Print the Apache License and who is under it, then the other texts."""
    crates = sorted(linked(), key=lambda crate: str(crate["name"]))
    apache = [crate for crate in crates if offers_apache(crate)]
    together: dict[str, list[str]] = {}
    for crate in crates:
        for text in texts(crate):
            together.setdefault(text, []).append(crate["name"])
    names = ", ".join(dict.fromkeys(crate["name"] for crate in apache))
    parts = [f"{HEAD}{names}.", apache_text(apache)]
    parts += [f"{', '.join(dict.fromkeys(named))}:\n\n{text}" for text, named in together.items()]
    sys.stdout.write(f"\n\n{'-' * 80}\n".join(parts) + "\n")


def linked() -> Iterator[dict[str, Any]]:
    """The crates whose code is in a wheel of any platform. Macros and build scripts only run during the build."""
    command = ["cargo", "metadata", "--locked", "--format-version=1", "--features=pyo3/extension-module"]
    for target in tomllib.loads((ROOT / "deny.toml").read_text())["graph"]["targets"]:
        command.append(f"--filter-platform={target}")
    found = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    crates = {crate["id"]: crate for crate in found["packages"]}
    needs = {node["id"]: node["deps"] for node in found["resolve"]["nodes"]}
    waiting = [key for key, crate in crates.items() if crate["name"] == "prolip-python"]
    seen = set()
    while waiting:
        key = waiting.pop()
        if key in seen or any("proc-macro" in target["kind"] for target in crates[key]["targets"]):
            continue
        seen.add(key)
        waiting += [need["pkg"] for need in needs[key] if any(kind["kind"] is None for kind in need["dep_kinds"])]
        if crates[key]["source"]:
            yield crates[key]


def offers_apache(crate: dict[str, Any]) -> bool:
    """Whether the Apache License is enough."""
    return any(choice.strip() == "Apache-2.0" for choice in re.split(r" OR |/", crate["license"]))


def apache_text(crates: list[dict[str, Any]]) -> str:
    """The Apache License, from the first crate that has it in a file of its own."""
    return next(tidy(path) for crate in crates for path in sorted(folder(crate).iterdir()) if APACHE.match(path.name))


def texts(crate: dict[str, Any]) -> Iterator[str]:
    """What must come along with a crate, beside the Apache License."""
    apache = offers_apache(crate)
    files = [path for path in sorted(folder(crate).iterdir()) if LICENCE.match(path.name) and path.is_file()]
    files = [path for path in files if (path.name.startswith("NOTICE") if apache else not APACHE.match(path.name))]
    files += [folder(crate) / name for name in BUNDLED.get(crate["name"], [])]
    yield from map(tidy, files)
    if not files and not apache:
        yield f"{crate['license']}, says its Cargo.toml. It comes without a text."


def folder(crate: dict[str, Any]) -> Path:
    """Where the crate's sources are."""
    return Path(crate["manifest_path"]).parent


def tidy(path: Path) -> str:
    """The text of a file without trailing spaces and empty lines around it."""
    return "\n".join(line.rstrip() for line in path.read_text(encoding="utf-8").splitlines()).strip("\n")


if __name__ == "__main__":
    main()
