#!/usr/bin/env bash
# Train on several machines without a scheduler: run the same line on each, with its own NODE_RANK (0 on the first).
#   NUM_NODES=4 NODE_RANK=0 FIRST_NODE=10.0.0.1 train/multi_node.sh vit-b16-datacomp-1b-1.28b --out /shared/runs/b16 \
#     --shards '/shared/datacomp/{00000000..00125136}.tar'
# The run's folder must be on shared storage. RESTARTS=3 restarts from the newest checkpoint when a process dies.
# NUM_NODES=1:2 continues on the first of two machines alone, and with the second again once it is back.
set -euo pipefail

: "${NUM_NODES:?number of machines}" "${NODE_RANK:?0 on the first machine}" "${FIRST_NODE:?address of the first machine}"
# Seconds that torchrun waits after SIGTERM for the run to save (before torch 2.12 it waits 30, whatever this says).
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-110}"
[[ " $* " == *" --device"* ]] || set -- "$@" --device cuda # never the CPU by accident
is_host=$((NODE_RANK == 0)) # the first machine hosts the rendezvous
exec torchrun --nnodes "$NUM_NODES" --nproc-per-node "${NPROC:-8}" --max-restarts "${RESTARTS:-0}" \
  --rdzv-backend c10d --rdzv-id "${RUN_ID:-prolip}" --rdzv-endpoint "$FIRST_NODE:${PORT:-29500}" \
  --rdzv-conf "is_host=$is_host" -m prolip.train "$@"
