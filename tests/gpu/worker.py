"""The process of one part: runs it, and writes rows to standard output."""

import argparse
import faulthandler
import json
import os
import sys
from importlib import import_module
from pathlib import Path

import torch
from tests.gpu.job import Job
from tests.gpu.parts import PARTS


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=[part.name for part in PARTS])
    parser.add_argument("--limit", type=float, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--scratch", type=Path, required=True)
    options = parser.parse_args()
    # Standard output is for rows alone. What libraries print there goes to the log.
    rows = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    faulthandler.enable()
    # If the part hangs, the log says where.
    faulthandler.dump_traceback_later(max(1.0, options.limit - 5), exit=False)
    if options.device == "cuda" and not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no GPU"
    module, name = next(part.place for part in PARTS if part.name == options.part).split(":")
    job = Job(
        device=options.device,
        small=options.small,
        scratch=options.scratch,
        emit=lambda row: rows.write(f"{json.dumps(row)}\n"),
    )
    getattr(import_module(f"tests.gpu.{module}"), name)(job)
    return 0


if __name__ == "__main__":
    sys.exit(main())
