#!/usr/bin/env bash
# Makes the secrets of compose.yaml and kuberay/, once: random, and readable by their owner only.
# Usage: make-secrets.sh [FOLDER]
set -euo pipefail
umask 077

folder="${1:-$(dirname "${BASH_SOURCE[0]}")/secrets}"
mkdir -p "$folder"
random() { python3 -c 'import secrets; print(secrets.token_hex(32), end="")'; }
new() { if [[ -e "$folder/$1" ]]; then cat >/dev/null; else cat >"$folder/$1"; fi; }

random | new ray_token
random | new mlflow_key
random | new postgres_password
printf '*:5432:*:paretrim:%s\n' "$(cat "$folder/postgres_password")" | new pgpass
new mlflow_auth <<EOF
[mlflow]
default_permission = READ
database_uri = sqlite:////data/mlflow/users.db
admin_username = paretrim
admin_password = $(random)
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
EOF
password="$(sed -n 's/^admin_password = //p' "$folder/mlflow_auth")"
printf 'export MLFLOW_TRACKING_USERNAME=paretrim MLFLOW_TRACKING_PASSWORD=%s\n' "$password" | new mlflow_client
# Containers read them as user 1000.
[[ "$(id -u)" != 0 ]] || chown -R 1000:1000 "$folder"
echo "secrets are in $folder"
