#!/bin/sh
# Reproduces the reports under stats/: the accelerator if there is one, else the CPU.
# Arguments are passed on, paths in them are read from the repository root:
#
#     sh stats.sh --iterations 20
set -eu
CDPATH='' cd -- "$(dirname -- "$0")"
. ./setup.sh

# cityscapes is 1x3x1024x2048, pascal 1x3x500x334; 25 warm-up and 300 measured iterations each.
"$PYTHON" timer.py --model mobilenet_v2 --input cityscapes --sentences --out stats "$@"
"$PYTHON" timer.py --model mobilenet_v2 --input pascal --sentences --out stats "$@"
