#!/usr/bin/env bash
# Several machines without a scheduler: run the same line on each, with its own NODE_RANK (0 on the first).
#   NUM_NODES=4 NODE_RANK=0 FIRST_NODE=10.0.0.1 train/multi_node.sh vit-b16-datacomp-1b-1.28b --run_dir /shared/runs/b16
# The run's folder must be on storage that all machines see; a restart of all of them continues the run.
set -euo pipefail

: "${NUM_NODES:?number of machines}" "${NODE_RANK:?0 on the first machine}" "${FIRST_NODE:?address of the first machine}"
exec torchrun --nnodes "$NUM_NODES" --node-rank "$NODE_RANK" --nproc-per-node "${NPROC:-8}" \
  --master-addr "$FIRST_NODE" --master-port "${PORT:-29500}" -m prolip.train "$@"
