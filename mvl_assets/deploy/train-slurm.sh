#!/usr/bin/env bash
# Trains on the machines of a Slurm job, one torchrun on each.
#
#     export MVL_LAUNCHER="$PWD/deploy/train-slurm.sh"
#
# Inside an allocation (`sbatch --nodes 4 --gpus-per-node 8 …`) it uses that one. Outside, srun asks for one with the
# variables it reads itself: export SLURM_NNODES=4 SLURM_GPUS_PER_NODE=8 SLURM_PARTITION=… SLURM_TIMELIMIT=…
# This folder with its .venv, MVL_HOME and MVL_LAKE must be on a file system that all machines share. MVL_PORT (29500)
# must be free on the first machine. Progress appears in the log of the Dagster step.
set -euo pipefail

# They name files of this machine, and rank 0 may be on another.
unset DAGSTER_PIPES_CONTEXT DAGSTER_PIPES_MESSAGES

# By default torchrun kills the ranks 30 seconds after it told them to end; saving a checkpoint takes longer.
srun --ntasks-per-node 1 --kill-on-bad-exit=1 bash -c '
  first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
  exec .venv/bin/python -m torch.distributed.run --shutdown-timeout "${MVL_SAVE_GRACE_S:-270}" \
    --nnodes "$SLURM_NNODES" --node-rank "$SLURM_NODEID" --rdzv-endpoint "$first:${MVL_PORT:-29500}" "$@"
' torchrun "$@" </dev/null &
# srun does not pass on an interrupt; it passes on a SIGTERM, and the ranks save.
trap 'kill -TERM $!' INT TERM
wait $! || wait $!
