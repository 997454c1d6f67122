"""`python -m prolip.train` with little patience, in which rank 1 alone reads the shards that the first word names."""

from __future__ import annotations

import os
import sys

from prolip.train import stop_signal
from prolip.train.loop import main

if __name__ == "__main__":
    stop_signal.PATIENCE_S = 2
    shards, words = sys.argv[1], sys.argv[2:]
    sys.exit(main([*words, *(["--data.shards", shards] if os.environ["RANK"] == "1" else [])]))
