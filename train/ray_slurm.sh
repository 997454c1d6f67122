#!/usr/bin/env bash
# Embed, choose and drop near-duplicates with Slurm, on a Ray cluster of the job's nodes. Arguments go to `prolip embed`:
#   OUT=/shared/embeddings sbatch train/ray_slurm.sh --checkpoint ProLIP-ViT-B-16-DC-1B-12_8B --what both \
#     --precision bf16 --num_gpus 1 --num_cpus 8 --shards '/shared/datacomp/{00000000..00125136}.tar'
# Slurm queues the job again when a node is lost or it is pre-empted. Its embeddings continue after the last finished
# part, as they do when the same line is submitted again. Nodes are exclusive, since `ray symmetric-run` ends with
# `ray stop`, which stops every Ray of the user on the machine.
#SBATCH --job-name=prolip-embed
#SBATCH --nodes=4
#SBATCH --exclusive
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
set -euo pipefail

export OUT="${OUT:?folder of the embeddings, on shared storage}"
export SCRATCH="${SCRATCH:-$(dirname "$OUT")}" # shared, for temporary files as large as the chosen embeddings
export BY="${BY:-csd}" KEEP_SHARE="${KEEP_SHARE:-0.5}" # what `prolip data select` keeps
RAY_AUTH_TOKEN=$(ray get-auth-token --generate)
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token # other users cannot use the cluster
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT="${RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT:-300}" # s until all nodes are there
steps='
  prolip embed "$@" --out "$OUT" --on ray
  prolip data select --embeddings "$OUT" --by "$BY" --keep_share "$KEEP_SHARE" --out "$OUT-$BY" --on ray
  prolip data dedupe --embeddings "$OUT" --within "$OUT-$BY" --scratch "$SCRATCH" --out "$OUT-chosen" --on ray
'
nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
port=$((20000 + SLURM_JOB_ID % 20000)) # so that jobs on one machine have different ports
exec srun --kill-on-bad-exit=1 ray symmetric-run --address "${nodes[0]}:$port" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "$SLURM_GPUS_ON_NODE" -- bash -euc "$steps" bash "$@"
