"""`python -m prolip.train`, in which rank 1 reads other shards than rank 0: those that the first word names."""

import os
import sys

from tests.support.flags import latest

from prolip.train.loop import main

if __name__ == "__main__":
    shards, words = sys.argv[1], sys.argv[2:]
    sys.exit(main(latest([*words, *(["--data.shards", shards] if os.environ["RANK"] == "1" else [])])))
