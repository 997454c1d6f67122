#!/usr/bin/env bash
# Train on one machine, with one process per GPU, or with NPROC processes on the CPU (--device cpu).
#   train/one_node.sh vit-b16-datacomp-1b-1.28b --shards '/data/datacomp/{00000000..00125136}.tar'
# RESTARTS=3 restarts from the newest checkpoint when a process dies.
set -euo pipefail

# Seconds that torchrun waits after SIGTERM for the run to save (before torch 2.12 it waits 30, whatever this says).
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-110}"
[[ " $* " == *" --device"* ]] || set -- "$@" --device cuda # never the CPU by accident
gpus=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU' || true)
exec torchrun --standalone --nproc-per-node "${NPROC:-$((gpus > 0 ? gpus : 1))}" --max-restarts "${RESTARTS:-0}" \
  -m prolip.train "$@"
