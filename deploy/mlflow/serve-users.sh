#!/usr/bin/env bash
# An MLflow server for several people, each with a name and a password. Needs the extra `server`.
# Usage: serve-users.sh FOLDER [HOST] [PORT]; a HOST other than loopback must be named as people will type it, and is to
# stand behind TLS. The first start makes the administrator `paretrim`; the password is in FOLDER/users.ini.
set -euo pipefail
umask 077

folder="${1:?usage: serve-users.sh FOLDER [HOST] [PORT]}"
host="${2:-127.0.0.1}"
port="${3:-5000}"
mkdir -p "$folder"
folder="$(cd "$folder" && pwd)"
random() { python -c 'import secrets; print(secrets.token_hex(32))'; }

[[ -e "$folder/key" ]] || random >"$folder/key"
[[ -e "$folder/users.ini" ]] || cat >"$folder/users.ini" <<EOF
[mlflow]
default_permission = READ
database_uri = sqlite:///$folder/users.db
admin_username = paretrim
admin_password = $(random)
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
EOF

MLFLOW_FLASK_SERVER_SECRET_KEY="$(cat "$folder/key")"
export MLFLOW_FLASK_SERVER_SECRET_KEY
export MLFLOW_AUTH_CONFIG_PATH="$folder/users.ini"
export MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
exec mlflow server --app-name basic-auth \
    --host "$host" --port "$port" --workers 1 \
    --allowed-hosts "$host:$port,localhost:$port,127.0.0.1:$port" \
    --backend-store-uri "sqlite:///$folder/mlflow.db" \
    --artifacts-destination "$folder/artifacts"
