#!/bin/sh
# Asks a service of its own the questions of question.json and tests.csv: makes the answers that the
# OpenAPI document shows, and answers.txt beside this script. Some minutes.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/../.."
. ./setup.sh

port=8765
folder=$(mktemp -d)
# An answer, however long it takes, and no job in its place.
LAYERBENCH_SERVE_WAIT_S=3600
export LAYERBENCH_SERVE_WAIT_S
"$PYTHON" -m layerbench serve --port "$port" --database "$folder/service.db" --seconds 5 2>"$folder/log" &
server=$!
trap 'kill "$server"; wait "$server" || true; rm -rf "$folder"' EXIT
until curl --silent --fail --output /dev/null "http://127.0.0.1:$port/health/ready"; do
    kill -0 "$server"
    sleep 1
done

mkdir -p layerbench/service/examples
for route in estimate-resource estimate-training-time estimate-inference-time; do
    curl --silent --show-error --fail --header 'Content-Type: application/json' \
        --data @examples/service/question.json "http://127.0.0.1:$port/api/v1/$route" >"$folder/answer"
    "$PYTHON" -m json.tool "$folder/answer" "layerbench/service/examples/$route.json"
done
"$PYTHON" -m layerbench client --test-cases examples/service/tests.csv \
    --url "http://127.0.0.1:$port" --quiet >"$folder/answers" || true
mv "$folder/answers" examples/service/answers.txt
