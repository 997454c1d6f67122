"""What `make` does before it builds, in a copy of the checkout's own files with stand-ins for the compilers."""

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RUST = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["rust-version"]
DONE = (".maturin", ".packages", ".extension")


@pytest.fixture
def checkout(tmp_path):
    """A folder with a space in its path. All is set up in it, except that the package is not installed."""
    folder = tmp_path / "a checkout"
    (folder / "rust").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "Cargo.toml", "Cargo.lock"):
        shutil.copyfile(ROOT / name, folder / name)
    for name in ("cmake", "nasm"):
        program(folder / "programs" / name, "true")
    program(folder / "programs" / "cargo", "echo cargo 1.99.0")
    program(folder / ".venv/bin/maturin", 'echo "$VIRTUAL_ENV" > installed-into')
    for name in DONE:
        (folder / ".venv" / name).touch()
    return folder


def program(path, line):
    """Write a shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def make(folder, target):
    environment = {**os.environ, "PATH": f"{folder / 'programs'}:{os.environ['PATH']}"}
    environment = {name: value for name, value in environment.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", target], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def test_the_path_of_a_checkout_may_have_spaces(checkout):
    done = make(checkout, ".venv/.ready-demo")
    assert done.returncode == 0, done.stderr
    assert (checkout / "installed-into").read_text().strip() == str(checkout / ".venv")


@pytest.mark.parametrize(("version", "enough"), [("1.63.0", False), (f"{RUST}.0", True), ("1.100.0-nightly", True)])
def test_an_old_rust_is_named_before_anything_is_compiled(checkout, version, enough):
    program(checkout / "programs" / "cargo", f"echo 'cargo {version} (0123456789 2022-08-11)'")
    done = make(checkout, "build-tools")
    assert (done.returncode == 0) is enough
    assert (f"prolip needs Rust {RUST} or newer, and cargo is {version}\n" in done.stderr) is not enough
