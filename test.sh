#!/bin/sh
# Sets itself up and runs every check, but for the slow tests. Arguments go to pytest:
#
#     sh test.sh                          # in under ten minutes on two cores
#     sh test.sh --all                    # the slow tests, too: twice as long
#     sh test.sh tests/test_scripts.py    # all tests of a file
#
# A failing step does not keep the ones after it from running; the exit status is 0 only if all passed.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")"
. ./setup.sh

left_out=
case ${1-} in
    '') left_out='not slow' ;;
    --all) shift ;;
esac

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
# Beside each other, one process more than cores, as many tests wait for another process; four at
# most: each loads torch. More threads would only wait for each other.
: "${OMP_NUM_THREADS:=1}"
export OMP_NUM_THREADS
cores=$("$PYTHON" -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)')
processes=${LAYERBENCH_TEST_PROCESSES:-$((cores < 3 ? cores + 1 : 4))}
step pytest "$PYTHON" -m pytest --numprocesses "$processes" --dist worksteal ${left_out:+-m "$left_out"} "$@"

if ! wait "$checking"; then
    printf '== mypy --strict\n'
    cat "$types"
    failed="$failed${failed:+,} mypy --strict"
fi

# Nothing follows pytest's own summary unless something failed. What it calls deselected is slow.
[ -z "$failed" ] || printf '== failed:%s\n' "$failed"
[ -z "$failed" ]
