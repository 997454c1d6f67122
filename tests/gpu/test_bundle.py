"""The bundle for a machine without a network: what it holds, and how it is used."""

import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata

from tests.conftest import ROOT
from tests.gpu import bundle
from tests.gpu.__main__ import unpack


def test_the_bundle_has_the_wheels_dependencies_that_torch_lacks(tmp_path, monkeypatch):
    """Whatever is installed of prolip: it may be older, and need more."""
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    lines = [
        f"Requires-Dist: {need}" for need in [*needs, "onnx>=1; extra == 'onnx'", "gone>=1; python_version < '3.12'"]
    ]
    with zipfile.ZipFile(tmp_path / "prolip-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("prolip-1.dist-info/METADATA", "\n".join(["Name: prolip", "Version: 1", *lines, ""]))
    read = metadata.requires
    monkeypatch.setattr(metadata, "requires", lambda name: ["pytest"] if name == "prolip" else read(name))
    wanted = bundle.wanted(tmp_path / "prolip-1-py3-none-any.whl")
    assert {"numpy", "pillow", "tokenizers", "safetensors", "ftfy", "tyro"} <= wanted.keys()
    assert wanted["numpy"] == metadata.version("numpy")
    assert not {"pytest", "onnx", "gone", "maturin"} & wanted.keys()
    assert not {"prolip", "torch", "torchvision", "timm", "triton", "sympy", "filelock", "jinja2"} & wanted.keys()
    assert not [name for name in wanted if name.startswith(("nvidia", "cuda"))]


def test_a_bundle_is_unpacked_to_an_importable_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "carried-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried.py", "value = 7\n")
        wheel.writestr("carried-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: carried\nVersion: 1.0\n")
        wheel.writestr("carried-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("carried-1.0.dist-info/RECORD", "")
    site = unpack(tmp_path, tmp_path / "site")
    code = "import carried; print(carried.value)"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(site)}, capture_output=True, check=True)
    assert done.stdout == b"7\n"
