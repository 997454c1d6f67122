"""Train from a checkout: `python train/train.py recipe.toml --flag value`, like `prolip train`."""

import sys

from prolip.train.loop import main

sys.exit(main())
