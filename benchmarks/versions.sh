#!/bin/sh
# Tries layerbench on versions of PyTorch, one after the other. Each gets a virtual environment of its
# own, with the torchvision that belongs to it, which is removed afterwards: 6 GB while it is there.
# On two cores a version takes half an hour, most of it tests, so this is for the night.
#
#     sh benchmarks/versions.sh                         # those of docs/versions.md
#     sh benchmarks/versions.sh 2.4:3.10 newest:3.14    # torch 2.4 on Python 3.10, then the newest
#     sh benchmarks/versions.sh --page                  # and write the rows into docs/versions.md
#
# Writes versions.md, a table, and what every step printed into OUT (outputs/versions without it).
# TESTS names the test files; empty, none runs. The exit status is 1 if anything failed.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."

page=
if [ "${1-}" = --page ]; then
    page=docs/versions.md
    shift
fi
[ $# -gt 0 ] || set -- 2.4:3.10 2.8:3.12 2.11:3.13 newest:3.14
OUT=${OUT:-outputs/versions}
# Those of the parts that use what PyTorch does not document. The steps before run the others.
: "${TESTS=tests/introspection tests/instruments tests/environment/devices tests/profilers tests/integrations \
tests/test_left_as_it_was.py}"

: "${OMP_NUM_THREADS:=1}"
export OMP_NUM_THREADS
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
mkdir -p "$OUT"
table=$OUT/versions.md
failed=

say() { printf '%s\n' "$*" >&2; }

# python_of VERSION: prints the path of that Python: on PATH, or one that pyenv has.
python_of() {
    for found in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
        # A shim of pyenv's is there for every version, and works for the chosen ones.
        "$found" -c 'import sys, venv, ensurepip; print(sys.executable)' 2>/dev/null && return 0
    done
    return 1
}

# install TORCH: fill $venv with layerbench's dependencies, the oldest numpy with the oldest torch.
install() {
    case $1 in
        newest) set -- torch torchvision ;;
        2.4) set -- "torch==2.4.*" "torchvision==0.19.*" "numpy==1.26.*" ;;
        *) set -- "torch==$1.*" "torchvision==0.$((${1#*.} + 15)).*" ;;
    esac
    # From a copy, as a build writes into its folder.
    rm -rf "$work/source"
    mkdir "$work/source"
    cp -R layerbench setup.py pyproject.toml README.md LICENSE "$work/source"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-compile "$@" \
        "$work/source[timm,digits,energy,cudnn,notebook,serve,postgresql,hf,lightning]" pytest pytest-timeout pytest-xdist hypothesis scipy jsonschema \
        accelerate tensorboard &&
        # What runs is the checkout.
        "$venv/bin/python" -m pip uninstall --quiet --yes layerbench
}

# step NAME COMMAND...: its output goes into a file, and a cell into $row.
step() {
    log=$OUT/$label-$1.log
    shift
    if "$@" >"$log" 2>&1; then
        row="$row ok |"
    else
        row="$row **failed** |"
        failed=yes
        say "  failed: $log"
    fi
}

# count WORD: how many tests did that, by pytest's own last line.
count() { tail -n 1 "$log" | grep -o "[0-9]* $1" | grep -o "^[0-9]*" || echo 0; }

# tests: as a step. They run in a worker, as one that an old PyTorch aborts would take the others with it.
tests() {
    if [ -z "$TESTS" ]; then
        row="$row not run |"
        return
    fi
    log=$OUT/$label-tests.log
    status=0
    # shellcheck disable=SC2086 # several places
    "$python" -m pytest -q -p no:cacheprovider -n 1 --max-worker-restart 50 $TESTS \
        >"$log" 2>&1 </dev/null || status=$?
    # An error is a file that cannot be collected, or a fixture's.
    broken=$(($(count failed) + $(count error)))
    row="$row $(count passed) passed, $broken failed, $(count skipped) skipped |"
    [ "$status" = 0 ] || failed=yes
}

every_module='
import importlib, pkgutil, layerbench
for module in pkgutil.walk_packages(layerbench.__path__, "layerbench."):
    # The migrations are loaded by Alembic alone.
    if not module.name.endswith("__main__") and ".migrations." not in module.name:
        importlib.import_module(module.name)
'
versions='
import platform
from importlib.metadata import version
print("|", " | ".join([*map(version, ("torch", "torchvision", "numpy")), platform.python_version()]), end=" |")
'

# try TORCH PYTHON: one row of the table.
try() {
    label=torch-$1
    venv=$work/venv
    say "torch $1 on Python $2"
    if ! base=$(python_of "$2") || ! "$base" -m venv "$venv" ||
        ! install "$1" >"$OUT/$label-install.log" 2>&1; then
        say "  cannot be installed: $OUT/$label-install.log"
        printf '| %s | | | %s | cannot be installed | | | | | | | |\n' "$1" "$2" >>"$table"
        failed=yes
        rm -rf "$venv"
        return
    fi
    python=$venv/bin/python
    row=$("$python" -c "$versions")
    small="--model resnet18 --input 2x3x64x64"
    # shellcheck disable=SC2086 # options
    {
        step import "$python" -c "$every_module"
        step timer "$python" timer.py $small --device cpu --iterations 10 --out "$work/reports"
        step mem "$python" mem.py $small --device cpu
        step mem-train "$python" mem.py $small --device cpu --train
        step train-profile "$python" -m layerbench train-profile $small --device cpu --iterations 5
        step train "$python" train.py --model resnet18 --no-pretrained --data synthetic --size 32 \
            --samples 64 --batch_size 16 --epochs 1 --device cpu --output_dir "$work/trained"
    }
    tests
    printf '%s %s |\n' "$row" "$(date +%Y-%m-%d)" >>"$table"
    rm -rf "$venv" "$work/reports" "$work/trained"
}

cat >"$table" <<'TABLE'
| torch | torchvision | numpy | Python | import | timer | mem | mem --train | train-profile | train | tests | tried |
|---|---|---|---|---|---|---|---|---|---|---|---|
TABLE
for wanted in "$@"; do
    try "${wanted%%:*}" "${wanted#*:}"
done
cat "$table"
# Of a row of the same torch and Python, up to their second numbers, this one takes the place.
into_page='
import re, sys
from pathlib import Path
table, page = map(Path, sys.argv[1:])
def key(row):
    cells = [cell.strip() for cell in row.split("|")]
    return tuple(tuple(map(int, re.findall(r"[0-9]+", cells[at])[:2])) for at in (1, 4))
first, second, *rows = table.read_text().splitlines()
before, there, after = re.split(r"(?<=\n\n)(\| torch \|(?:.*\|\n)+)", page.read_text())
kept = {key(row): row for row in [*there.splitlines()[2:], *rows]}
lines = [first, second, *(kept[one] for one in sorted(kept))]
page.write_text(before + "\n".join(lines) + "\n" + after)
'
[ -z "$page" ] || python3 -c "$into_page" "$table" "$page"
[ -z "$failed" ]
