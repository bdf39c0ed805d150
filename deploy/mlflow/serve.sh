#!/usr/bin/env bash
# An MLflow server for one machine or a trusted network, with what Paretrim never needs switched off.
# Usage: serve.sh FOLDER [HOST] [PORT]; a HOST other than loopback must be named as people will type it.
set -euo pipefail

folder="${1:?usage: serve.sh FOLDER [HOST] [PORT]}"
host="${2:-127.0.0.1}"
port="${3:-5000}"
mkdir -p "$folder"
folder="$(cd "$folder" && pwd)"

export MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
exec mlflow server \
    --host "$host" --port "$port" --workers 1 \
    --allowed-hosts "$host:$port,localhost:$port,127.0.0.1:$port" \
    --backend-store-uri "sqlite:///$folder/mlflow.db" \
    --artifacts-destination "$folder/artifacts"
