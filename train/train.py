"""Training from a checkout: `python train/train.py recipe.toml --flag value`, the same as `prolip train`."""

import sys

from prolip.train.loop import main

sys.exit(main())
