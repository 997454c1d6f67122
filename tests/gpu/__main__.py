"""The first run on a GPU in one command: `make gpu`, or `python3 -m tests.gpu`. See docs/how-to/check-a-gpu.md.

Needs only Python, torch and pip: the rest comes from the folder that `make gpu-bundle` filled on another machine.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from tests.gpu.report import Report, named_parts
from tests.gpu.schedule import ROOT, run_parts

_SLOWER = 5
"""Times the limits of a small run."""


def main():
    parser = argparse.ArgumentParser(prog="python3 -m tests.gpu", description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="where the parts run")
    parser.add_argument("--small", action="store_true", help="sizes of an ordinary test")
    parser.add_argument("--bundle", type=Path, help="folder of wheels; without it, prolip must be installed")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of gpu.md, gpu.json and gpu.log")
    parser.add_argument("--seconds", type=float, default=540, help="time for everything")
    parser.add_argument("--only", nargs="*", default=[], metavar="PART", help="names of parts")
    options = parser.parse_args()
    if find_spec("torch") is None:
        raise SystemExit(f"{sys.executable} has no torch: name another, as in make gpu PYTHON=/opt/venv/bin/python")
    if options.bundle is None and find_spec("prolip") is None:
        raise SystemExit(f"{sys.executable} has no prolip: fill gpu-bundle/ by `make gpu-bundle` on another machine")
    started = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    about = {"device": options.device, "started": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())}
    if options.bundle is not None and (commit := options.bundle / "COMMIT").exists():
        about["commit"] = commit.read_text(encoding="utf-8").strip()
    # A small run is a test, on machines that do much else.
    slower = _SLOWER if options.small else 1
    parts = tuple(part._replace(seconds=slower * part.seconds) for part in named_parts(options.only))
    report = Report(options.out.resolve(), parts, about)
    report.write()
    with tempfile.TemporaryDirectory(prefix="prolip-gpu-", ignore_cleanup_errors=True) as folder:
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        if options.bundle is not None:
            known = [str(unpack(options.bundle, Path(folder, "site"))), str(ROOT), os.environ.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, known))
        flags = ["--device", options.device, *(["--small"] if options.small else []), "--scratch", folder]
        worker = [sys.executable, "-m", "tests.gpu.worker"]
        run_parts(
            report,
            lambda name, limit: [*worker, name, "--limit", str(limit), *flags],
            environment=environment,
            seconds=options.seconds - (time.monotonic() - started),
            scratch=Path(folder, "logs"),
            log=report.markdown_file.with_name("gpu.log"),
        )
    print(report.markdown_file.read_text(encoding="utf-8"))
    return 0 if report.is_good else 1


def unpack(bundle, site):
    """Install the wheels of the bundle into a folder, so that nothing else on the machine changes.

    They come before what is installed: the tests have passed with these versions. No virtual environment is made,
    because torch may be installed in one, which a second one would not see.
    """
    wheels = sorted(bundle.glob("*.whl"))
    if not wheels:
        raise SystemExit(f"{bundle} has no wheels: fill it with `make gpu-bundle` on a machine with a network")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    install += f"--no-cache-dir --disable-pip-version-check --root-user-action=ignore --target {site}".split()
    subprocess.run([*install, *map(str, wheels)], check=True)
    return site


if __name__ == "__main__":
    sys.exit(main())
