"""`python -m prolip.train` under DDP and then FSDP2, each in a folder of its own: one start of processes for both."""

import sys

from prolip.train.loop import main

if __name__ == "__main__":
    words = sys.argv[1:]
    folder = words.index("--out") + 1
    for strategy in ("ddp", "fsdp"):
        own = [*words[:folder], f"{words[folder]}-{strategy}", *words[folder + 1 :]]
        assert main([*own, "--parallel.strategy", strategy]) == 0
