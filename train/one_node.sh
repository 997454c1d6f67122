#!/usr/bin/env bash
# Train on one machine, with one process per GPU (or, without GPUs, with NPROC processes).
#   train/one_node.sh vit-b16-datacomp-1b-1.28b --data.shards '/data/datacomp/{00000000..00139827}.tar'
# RESTARTS=3 restarts from the newest checkpoint when a process dies.
set -euo pipefail

gpus=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU' || true)
exec torchrun --standalone --nproc-per-node "${NPROC:-$((gpus > 0 ? gpus : 1))}" --max-restarts "${RESTARTS:-0}" \
  -m prolip.train "$@"
