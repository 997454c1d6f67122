"""Download the wheels that prolip needs beside torch on the machine of `make gpu`: `python -m tests.gpu.bundle FOLDER`.

The versions are those of this environment, which the tests pass with. Our own wheel is in the folder already.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYTHON = "3.12"
MOST_BYTES = 60_000_000
_ENVIRONMENT = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.0", "sys_platform": "linux", "extra": ""}
_ENVIRONMENT |= {"platform_system": "Linux", "platform_machine": "x86_64", "implementation_name": "cpython"}
_PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(39, 4, -1)]
_PLATFORMS += ["manylinux2014_x86_64", "manylinux1_x86_64"]
_UNUSED = {"hf-xet"}
"""Not imported by the parts: they download nothing."""


def main() -> int:
    folder = Path(sys.argv[1])
    if not list(folder.glob("prolip-*.whl")):
        raise SystemExit(f"{folder} has no wheel of prolip: run `make gpu-bundle`")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as pins:
        pins.write("".join(f"{name}=={version}\n" for name, version in wanted().items()))
        pins.flush()
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp"]
        command += [word for platform in _PLATFORMS for word in ("--platform", platform)]
        subprocess.run([*command, "--dest", str(folder), "--requirement", pins.name], check=True)
    print(summary(folder))
    return 0


def wanted() -> dict[str, str]:
    """Packages and versions: all that prolip needs, without torch and what torch brings itself."""
    brought = needs("torch")
    return {name: metadata.version(name) for name in sorted(needs("prolip") - brought - {"torch", *_UNUSED})}


def needs(package: str) -> set[str]:
    """What a package needs on that machine, directly and through others. Nothing is needed through torch."""
    found: set[str] = set()
    waiting = [package]
    while waiting:
        for text in metadata.requires(waiting.pop()) or []:
            requirement = Requirement(text)
            name = canonicalize_name(requirement.name)
            if name in found or (requirement.marker and not requirement.marker.evaluate(_ENVIRONMENT)):
                continue
            found.add(name)
            if name not in {"torch", *_UNUSED} and has(name):
                waiting.append(name)
    return found


def has(name: str) -> bool:
    """Whether a package is installed. Some of what torch needs is not, where it was built without a GPU."""
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def summary(folder: Path) -> str:
    """The size of the bundle.

    Raises:
        SystemExit: it is larger than the machine of `make gpu` takes.
    """
    sizes = {path.name: path.stat().st_size for path in folder.glob("*.whl")}
    whole = sum(sizes.values())
    if whole > MOST_BYTES:
        largest = ", ".join(sorted(sizes, key=lambda name: sizes[name], reverse=True)[:5])
        raise SystemExit(f"{folder} has {whole:,} bytes, more than {MOST_BYTES:,}: the largest are {largest}")
    return f"{folder}: {len(sizes)} wheels, {whole / 1e6:.1f} MB. Copy the working tree with it and run: make gpu"


if __name__ == "__main__":
    sys.exit(main())
