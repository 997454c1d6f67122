"""`torchrun -m prolip.train RECIPE.toml --flag value`: `prolip.train.loop` on every process."""

import sys

from prolip.train.loop import main

if __name__ == "__main__":
    sys.exit(main())
