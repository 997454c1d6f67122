"""Training: `torchrun -m prolip.train RECIPE` runs `prolip.train.loop`, which reads from top to bottom."""
