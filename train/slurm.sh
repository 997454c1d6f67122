#!/usr/bin/env bash
# Slurm: one torchrun a node, a process a GPU; 4 nodes of 8 GPUs are the published runs' 32.
#   sbatch train/slurm.sh vit-b16-datacomp-1b-1.28b --run_dir /shared/runs/b16 --data.shards '/shared/datacomp/*.tar'
# Pre-empted, or two minutes before its time is up, the job's steps get SIGTERM: the run saves and ends. After a pre-emption
# Slurm starts it again by itself (--requeue), after the time limit the same sbatch line does; both go on from the save.
#SBATCH --job-name=prolip
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --output=slurm-%j.log
set -euo pipefail

first_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
exec srun --kill-on-bad-exit=1 torchrun --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$SLURM_GPUS_ON_NODE" \
  --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$first_node:29500" -m prolip.train "$@"
