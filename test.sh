#!/bin/sh
# Sets itself up and runs every check. Arguments go to pytest:
#
#     sh test.sh tests/test_scripts.py
#
# A failing step does not keep the ones after it from running; the exit status is 0 only if all passed.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")"
. ./setup.sh

PATH=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("scripts"))'):$PATH
export PATH
failed=

# step NAME COMMAND...
step() {
    name=$1
    shift
    printf '== %s\n' "$name"
    "$@" || failed="$failed${failed:+,} $name"
}

step 'ruff check' ruff check
step 'ruff format' ruff format --check
# While the others run; what it says comes at the end.
types=$(mktemp)
trap 'rm -f "$types"' EXIT
mypy --strict --package layerbench >"$types" 2>&1 &
checking=$!
step 'import-linter' lint-imports
step 'shellcheck' shellcheck --external-sources ./*.sh ./*/*.sh ./*/*/*.sh .ci/run
# Beside each other, a process a core, four at most: each loads torch. More threads would only wait
# for each other.
: "${OMP_NUM_THREADS:=1}"
export OMP_NUM_THREADS
step pytest "$PYTHON" -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal "$@"

if ! wait "$checking"; then
    printf '== mypy --strict\n'
    cat "$types"
    failed="$failed${failed:+,} mypy --strict"
fi

# Nothing follows pytest's own summary unless something failed.
[ -z "$failed" ] || printf '== failed:%s\n' "$failed"
[ -z "$failed" ]
