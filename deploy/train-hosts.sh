#!/usr/bin/env bash
# Trains on every machine of a hosts file, over ssh; one machine a line, the first holds rank 0.
#
#     export MVL_LAUNCHER="$PWD/deploy/train-hosts.sh $PWD/hosts.txt"
#
# Every machine needs this folder with its .venv, MVL_HOME and MVL_LAKE under the same paths (a shared file system; the
# lake may be an object store), and an answer to ssh without a password. Let the first be the machine that this runs on:
# a cancel asks the ranks it finds here, which tell all others, and everyone saves.
#
#   MVL_PORT   a free port of the first machine (29500)
#   MVL_SSH    what runs a line of shell on a host (ssh; `pdsh -R ssh -S -w` takes the same two arguments)
#
# Variables whose names begin as below go along; secrets (AWS_…) belong into each machine's own environment. Progress
# appears in the log of the Dagster step.
set -euo pipefail

mapfile -t hosts < <(grep -Ev '^[[:space:]]*(#|$)' "$1")
shift
passed=$(env -0 | grep -zE '^(MVL|NCCL|GLOO|TORCH|HF|OMP|KMP)_|^(PYTHONPATH|TOKENIZERS_PARALLELISM)=' |
  xargs -0 -r printf '%q ')
arguments=$(printf '%q ' "$@")
# With a terminal, a remote command ends with its connection.
shell=${MVL_SSH:-ssh -tt -o BatchMode=yes}

trap 'kill $(jobs -p) 2>/dev/null' INT TERM
for node in "${!hosts[@]}"; do
  $shell "${hosts[$node]}" "cd $(printf '%q' "$PWD") && exec env $passed .venv/bin/python -m torch.distributed.run \
    --nnodes ${#hosts[@]} --node-rank $node --rdzv-endpoint ${hosts[0]}:${MVL_PORT:-29500} $arguments" </dev/null &
done
# One that fails takes the others along: they would wait for it until their time-outs.
for _ in "${hosts[@]}"; do
  wait -n || { code=$?; kill $(jobs -p) 2>/dev/null || true; wait; exit "$code"; }
done
