#!/usr/bin/env bash
# The services of compose.yaml as plain processes on loopback: a Ray head that is its own worker, MLflow, a database.
# One node, as Ray gives every further one an address that can be reached from outside.
# Usage: local.sh FOLDER [OPTIONS OF paretrim serve-local]; Ctrl-C ends all of it.
set -euo pipefail

folder="${1:?usage: local.sh FOLDER [serve-local options]}"
mkdir -p "$folder"
exec paretrim serve-local --dir "$folder" "${@:2}"
