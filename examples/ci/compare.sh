#!/bin/sh
# Measure one model in two checkouts and compare them, layer by layer.
#
#     compare.sh BASE HEAD MODEL INPUT OUT [options of layerbench timer]
#
# BASE and HEAD are folders, MODEL is what layerbench timer takes, seen from either folder (such as
# my_package/model.py:build). Writes OUT/comparison.md; the exit status is that of layerbench compare: 1 if anything is
# SLOWER.
set -eu
[ $# -ge 5 ] || {
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
base=$1 head=$2 model=$3 input=$4
mkdir -p "$5"
out=$(CDPATH='' cd -- "$5" && pwd)
shift 5

# Five fresh processes each: how far two processes of one model lie apart is what a change is held against.
for side in base head; do
    [ "$side" = base ] && folder=$base || folder=$head
    (
        CDPATH='' cd -- "$folder"
        python -m layerbench timer --model "$model" --input "$input" --processes 5 --iterations 60 \
            --format json --out "$out/$side" "$@"
    )
done

record() {
    find "$out/$1" -path '*/layers/*.json'
}

status=0
python -m layerbench compare "$(record base)" "$(record head)" --format md >"$out/comparison.md" || status=$?
[ -s "$out/comparison.md" ] || rm "$out/comparison.md" # nothing could be compared: the message stands above
[ ! -f "$out/comparison.md" ] || cat "$out/comparison.md"
exit "$status"
