#!/usr/bin/env bash
# Trains in an indexed Job of MVL_NODES pods (train-kubernetes.yaml) and follows it to its end.
#
#     export MVL_LAUNCHER=deploy/train-kubernetes.sh MVL_NODES=4 MVL_IMAGE=registry/mvl:tag
#
# For a Dagster step that runs in the cluster, under a service account that may create and delete Jobs and Services and
# read Pods and their logs. MVL_HOME is on the volume that step and pods share.
set -euo pipefail

name=mvl-train-$(date +%s)
escaped() { printf '%s' "$1" | sed -e 's/[\\&|]/\\&/g'; }
ended() {
  conditions=$(kubectl get job "$name" -o jsonpath='{.status.conditions[?(@.status=="True")].type}')
  [ -n "$conditions" ]
}

trap 'kill $(jobs -p) 2>/dev/null || true; kubectl delete job,service "$name" --ignore-not-found >/dev/null' EXIT
trap 'exit 143' INT TERM
sed -e "s|@NAME@|$name|g" -e "s|@NODES@|${MVL_NODES:?}|g" -e "s|@IMAGE@|$(escaped "${MVL_IMAGE:?}")|g" \
  -e "s|@MVL_HOME@|$(escaped "${MVL_HOME:?}")|g" -e "s|@MVL_LAKE@|$(escaped "${MVL_LAKE:-$MVL_HOME/lake}")|g" \
  -e "s|@SAVE_GRACE@|${MVL_SAVE_GRACE_S:-270}|g" -e "s|@GRACE@|$((${MVL_SAVE_GRACE_S:-270} + 30))|g" \
  -e "s|@ARGUMENTS@|$(escaped "$(printf '%q ' "$@")")|g" "$(dirname "$0")/train-kubernetes.yaml" | kubectl apply -f -

until kubectl wait --for=condition=Ready pod -l "job-name=$name" --timeout=5s >/dev/null 2>&1 || ended; do sleep 1; done
kubectl logs --follow --prefix --selector "job-name=$name" --max-log-requests "$MVL_NODES" &
until ended; do sleep 5; done
[[ $conditions == *Complete* || $conditions == *SuccessCriteriaMet* ]]
