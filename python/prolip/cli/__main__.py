"""`python -m prolip.cli` is `prolip`."""

import sys

from prolip.cli import main

if __name__ == "__main__":
    sys.exit(main())
