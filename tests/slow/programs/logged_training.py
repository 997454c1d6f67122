"""`python -m prolip.train`, with the keys of every step's samples written into the run's folder, a file a rank."""

import json
import sys

from prolip.train import loop as train

take_step = train.take_step


def take_logged_step(run, batch):
    taken = take_step(run, batch)
    ranks = run.ranks
    with (run.config.out / f"keys-{ranks.world_size}-{ranks.rank}.jsonl").open("a") as file:
        file.write(json.dumps({"step": run.step, "world_size": ranks.world_size, "keys": batch.keys}) + "\n")
    return taken


if __name__ == "__main__":
    train.take_step = take_logged_step
    sys.exit(train.main())
