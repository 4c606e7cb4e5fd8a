#!/bin/sh
# What a machine with a GPU shows of layerbench, in at most ten minutes:
#
#     sh benchmarks/gpu.sh --out gpu-results
#     LAYERBENCH_PYTHON=python3 sh benchmarks/gpu.sh --wheels wheels --out gpu-results --archive gpu.tgz
#
# Each step has a time limit, and writes its figures as it gets them, DIR/<step>.json and .txt. One
# that fails stops nothing. At the end DIR/summary.txt has a line for each step, DIR/benchmarks.md
# tables for docs/benchmarks.md, DIR/pytest.xml what the tests said, DIR/stats/<gpu>/ the reports.
#
#   --out DIR       where results go; gpu-results unless named
#   --device NAME   cuda unless named; cpu and sim try the script itself
#   --wheels DIR    wheels of packages that this Python lacks: they are unpacked beside it for this
#                   run, and nothing is fetched
#   --archive FILE  all results in one file besides, renewed after each step
#   --at-most SECONDS
#                   in all; 570 unless said otherwise
#   --only STEPS    these alone, such as "rounds reports"
#   --quick         a tiny model and a few repeats: seconds instead of minutes
#
# Paths are read from the repository root. The exit status is 0 if every step ended well.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."

seconds_in_all=570
# What `timeout` waits before it kills, and what the summary takes.
KILL_AFTER=5
SUMMARY=10

usage() {
    printf 'gpu.sh: %s; see the top of benchmarks/gpu.sh\n' "$*" >&2
    exit 2
}

out=gpu-results
device=cuda
wheels=
archive=
quick=
only=
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=--quick ;;
    --out | --device | --wheels | --archive | --at-most | --only)
        [ $# -gt 1 ] || usage "$1 needs a value"
        case $1 in
        --out) out=$2 ;;
        --device) device=$2 ;;
        --wheels) wheels=$2 ;;
        --archive) archive=$2 ;;
        --at-most) seconds_in_all=$2 ;;
        --only) only=$2 ;;
        esac
        shift
        ;;
    *) usage "no option $1" ;;
    esac
    shift
done
command -v timeout >/dev/null || usage "there is no timeout (of GNU coreutils) on PATH"

. ./setup.sh

begun=$(date +%s)
mkdir -p "$out/logs"
: >"$out/steps.tsv"

site=
job=
failed=
finish() {
    [ -z "$job" ] || kill "$job" 2>/dev/null || :
    [ -z "$site" ] || rm -rf "$site"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -n "$wheels" ]; then
    site=$(mktemp -d)
    "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
        --target "$site" "$wheels"/*.whl || {
        printf 'gpu.sh: the wheels in %s could not be unpacked\n' "$wheels" >&2
        exit 2
    }
fi
# The checkout need not be installed. What a stopped step had to say is in its log.
PYTHONPATH=$PWD${site:+:$site}${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH PYTHONUNBUFFERED=1

seconds() { echo $(($(date +%s) - begun)); }

pack() {
    [ -z "$archive" ] || tar -czf "$archive" -C "$out" .
}

# told: a line of what the step has found out, or the end of what it said where it did not end well.
told() {
    if [ "$status" != 0 ]; then
        tail -n 15 "$out/logs/$name.log"
    elif [ -f "$out/$name.txt" ]; then
        head -n 1 "$out/$name.txt"
    fi
}

# step NAME LIMIT COMMAND...: run it for LIMIT seconds at most, and not beyond the time of all.
step() {
    name=$1
    limit=$2
    shift 2
    case " ${only:-$name} " in *" $name "*) ;; *) return 0 ;; esac
    left=$((seconds_in_all - KILL_AFTER - SUMMARY - $(seconds)))
    [ "$limit" -lt "$left" ] || limit=$left
    before=$(seconds)
    status=0
    if [ "$limit" -gt 0 ]; then
        printf '== %s, at most %s s\n' "$name" "$limit"
        # In the background, so that an interrupt reaches this shell at once.
        LAYERBENCH_STEP_SECONDS=$limit \
            timeout --kill-after="$KILL_AFTER" "$limit" "$@" >"$out/logs/$name.log" 2>&1 &
        job=$!
        wait "$job" || status=$?
        job=
        told
    else
        status=-
    fi
    [ "$status" = 0 ] || failed=yes
    printf '%s\t%s\t%s\n' "$name" "$status" "$(($(seconds) - before))" >>"$out/steps.tsv"
    pack
}

# ours NAME LIMIT: one of benchmarks/gpu/.
ours() {
    # shellcheck disable=SC2086 # an empty $quick is no word
    step "$1" "$2" "$PYTHON" -m benchmarks.gpu "$1" --device "$device" --out "$out" $quick
}

if command -v nvidia-smi >/dev/null; then
    timeout 10 nvidia-smi -q >"$out/nvidia-smi.txt" 2>&1 || :
fi

ours events 25
ours rounds 105
ours ramp 25
ours processes 20
# Plugins that these tests do not need take seconds to load.
step tests 75 env PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 "$PYTHON" -m pytest tests/test_gpu.py -q \
    -p no:cacheprovider --junitxml="$out/pytest.xml"
ours prediction 30
ours limit 35
ours sweep 30
ours graphs 60
ours reports 60
ours memory 40
# Two minutes of a loop, or what the others have left.
ours loop 156

"$PYTHON" -m benchmarks.gpu summary --out "$out" || failed=yes
pack
[ -z "$failed" ]
