#!/usr/bin/env bash
# Train with Slurm: one torchrun per node, one process per GPU. The published runs used 32 GPUs, 4 nodes of 8.
#   sbatch train/slurm.sh vit-b16-datacomp-1b-1.28b --out /shared/runs/b16 --shards '/shared/datacomp/*.tar'
# As an array with one recipe per task, each in a folder of its name (arguments after -- go to all of them):
#   sbatch --array=0-1 train/slurm.sh ablation control-siglip-vit-b16-1.28b -- --shards '/shared/datacomp/*.tar'
# When the job is pre-empted, or two minutes before its time limit, the run saves and ends, and the job requeues itself
# to resume. RESTARTS=3 also restarts within the job when a process dies.
#SBATCH --job-name=prolip
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
set -euo pipefail

if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
  recipes=()
  while [ "${1:?the recipes of an array end with --}" != -- ]; do recipes+=("$1") && shift; done
  shift
  set -- "${recipes[$SLURM_ARRAY_TASK_ID]}" "$@"
fi

# Seconds that torchrun waits after SIGTERM for the run to save, a little less than --signal reserves above (before torch
# 2.12 it waits 30, whatever this says).
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-110}"
[[ " $* " == *" --device"* ]] || set -- "$@" --device cuda # never the CPU by accident
nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
port=$((20000 + SLURM_JOB_ID % 20000)) # so that jobs on one machine have different ports
srun --kill-on-bad-exit=1 torchrun --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$SLURM_GPUS_ON_NODE" \
  --max-restarts "${RESTARTS:-0}" --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "${nodes[0]}:$port" \
  -m prolip.train "$@" &
step=$!

ending=
trap 'ending=1; kill -TERM "$step"' USR1 # srun forwards SIGTERM to all processes
status=0
wait "$step" || status=$?
[ -z "$ending" ] || wait "$step" || true # the signal ended the first wait, not the step
# Slurm requeues a pre-empted job itself, unless the job ends within the grace period.
if [[ -n "$ending" || "$(scontrol show job "$SLURM_JOB_ID")" == *" PreemptTime="[0-9]* ]]; then
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
