"""Two runs that cannot begin: one with a key that no rank knows, one whose shard rank 1 alone does not find."""

from __future__ import annotations

import os
import sys

from prolip.train.loop import main

if __name__ == "__main__":
    assert main([*sys.argv[1:], "--optim.lrr", "1"]) == 2
    sys.exit(main([*sys.argv[1:], *(["--data.shards", "absent.tar"] if os.environ["RANK"] == "1" else [])]))
