#!/usr/bin/env bash
# Trains on every machine of a hosts file, over ssh; the first has rank 0. The first word of each line is the host for
# ssh (`node1`, `user@node1`); the rest is ignored (`slots=8`, `# a remark`).
#
#     export MVL_LAUNCHER="$PWD/deploy/train-hosts.sh $PWD/hosts.txt"
#
# Every machine needs this folder with its .venv, MVL_HOME and MVL_LAKE under the same paths (a shared file system; the
# lake may be an object store), and must accept ssh without a password. Put the machine that this runs on first: a
# cancel signals the ranks on this machine, they tell all others, and every rank saves.
#
#   MVL_PORT   a free port of the first machine (29500)
#   MVL_SSH    what runs a line of shell on a host (ssh; `pdsh -R ssh -S -w` takes the same two arguments)
#
# Variables whose names begin as below are passed on, on a command line that other users may see; secrets (AWS keys,
# HF_TOKEN, names with KEY) belong in each machine's own environment. Progress appears in the log of the Dagster step.
set -euo pipefail

mapfile -t hosts < <(awk '{ sub(/[#\r].*/, "") } NF { print $1 }' "$1")
first=${hosts[0]:?"$1 names no machine"}
shift
passed=
while IFS= read -r -d '' variable; do
  case ${variable%%=*} in
    PYTHONPATH | TOKENIZERS_PARALLELISM) ;;
    *TOKEN* | *KEY* | *SECRET* | *PASSWORD*) continue ;;
    AWS_ENDPOINT* | AWS_REGION | AWS_DEFAULT_REGION | AWS_PROFILE) ;;
    MVL_* | NCCL_* | GLOO_* | TORCH_* | HF_* | WANDB_* | OMP_* | KMP_*) ;;
    *) continue ;;
  esac
  passed+=$(printf '%q ' "$variable")
done < <(env -0)
arguments=$(printf '%q ' "$@")
# With a terminal, a remote command ends with its connection.
shell=${MVL_SSH:-ssh -tt -o BatchMode=yes}

trap 'kill $(jobs -p) 2>/dev/null' INT TERM
for node in "${!hosts[@]}"; do
  $shell "${hosts[$node]}" "cd $(printf '%q' "$PWD") && exec env $passed .venv/bin/python -m torch.distributed.run \
    --nnodes ${#hosts[@]} --node-rank $node --rdzv-endpoint ${first#*@}:${MVL_PORT:-29500} $arguments" </dev/null &
done
# If one fails, end the others, which would wait for it until their timeouts.
for _ in "${hosts[@]}"; do
  wait -n || { code=$?; kill $(jobs -p) 2>/dev/null || true; wait; exit "$code"; }
done
