"""A run that cannot start: rank 1 alone does not find its shard."""

from __future__ import annotations

import os
import sys

from prolip.train.loop import main

if __name__ == "__main__":
    sys.exit(main([*sys.argv[1:], *(["--data.shards", "absent.tar"] if os.environ["RANK"] == "1" else [])]))
