#!/usr/bin/env bash
# Runs a command of mvl on a Ray cluster over all machines of a Slurm job.
#
#     sbatch --nodes 4 --cpus-per-task 16 --mem 0 --time 12:00:00 deploy/ray-slurm.sh mvl run --until judged
#
# The profile says `executor: {kind: ray, address: auto}`. This folder with its .venv, MVL_HOME and MVL_LAKE must be on
# a file system that all machines share (the lake may be an object store); MVL_SCRATCH may be a local disk. Ray listens
# on the machines' addresses and asks for the token in ~/.ray/auth_token, which all machines must see, too. Ports:
# MVL_RAY_PORT (6379) and those that Ray chooses. When the command ends, or the job, Ray ends on every machine.
#SBATCH --job-name mvl
#SBATCH --ntasks-per-node 1
#SBATCH --exclusive
set -euo pipefail

export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token
bin=$PWD/.venv/bin
"$bin/ray" get-auth-token --generate >/dev/null
port=${MVL_RAY_PORT:-6379}
cpus=${SLURM_CPUS_PER_TASK:-$(nproc)}
mapfile -t hosts < <(scontrol show hostnames "${SLURM_JOB_NODELIST:?run it with sbatch, or inside salloc}")
head_ip=$(srun --nodes 1 --ntasks 1 --nodelist "${hosts[0]}" hostname --ip-address | awk '{ print $1 }')
options="--num-cpus $cpus --object-store-memory 268435456 --block"

trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
srun --nodes 1 --ntasks 1 --overlap --nodelist "${hosts[0]}" \
  "$bin/ray" start --head --node-ip-address "$head_ip" --port "$port" --include-dashboard false $options &
export RAY_ADDRESS=$head_ip:$port
for _ in $(seq 60); do
  "$bin/ray" status >/dev/null 2>&1 && break
  sleep 2
done
if ((${#hosts[@]} > 1)); then
  srun --nodes $((${#hosts[@]} - 1)) --ntasks $((${#hosts[@]} - 1)) --overlap --exclude "${hosts[0]}" \
    "$bin/ray" start --address "$RAY_ADDRESS" $options &
fi
PATH=$bin:$PATH "$@"
