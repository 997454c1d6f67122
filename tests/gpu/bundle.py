"""Download the wheels that prolip needs beside torch on the machine of `make gpu`: `python -m tests.gpu.bundle FOLDER`.

Our own wheel is in the folder already and says what it needs: what is installed here may be older. The versions are
those of this environment, which the tests pass with.
"""

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


def main():
    folder = Path(sys.argv[1])
    ours = next(folder.glob("prolip-*.whl"), None)
    if ours is None:
        raise SystemExit(f"{folder} has no wheel of prolip: run `make gpu-bundle`")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as pins:
        pins.write("".join(f"{name}=={version}\n" for name, version in wanted(ours).items()))
        pins.flush()
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp"]
        command += [word for platform in _PLATFORMS for word in ("--platform", platform)]
        subprocess.run([*command, "--dest", str(folder), "--requirement", pins.name], check=True)
    print(summary(folder))
    return 0


def wanted(wheel):
    """Packages and versions: all that the wheel needs, without torch and what torch brings itself."""
    (ours,) = metadata.distributions(path=[str(wheel)])
    brought = needs(metadata.requires("torch"))
    return {name: metadata.version(name) for name in sorted(needs(ours.requires) - brought - {"torch", *_UNUSED})}


def needs(requirements):
    """The packages that meet requirements on that machine, and what they need. Nothing is needed through torch."""
    found = set()
    waiting = list(requirements or [])
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate(_ENVIRONMENT)):
            continue
        found.add(name)
        if name not in {"torch", *_UNUSED} and has(name):
            waiting += metadata.requires(name) or []
    return found


def has(name):
    """Whether a package is installed. Some of what torch needs is not, where it was built without a GPU."""
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def summary(folder):
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
