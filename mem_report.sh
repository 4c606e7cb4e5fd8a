#!/bin/sh
# Reproduces the memory reports under memory_reports/.
# Arguments are passed on, paths in them are read from the repository root:
#
#     sh mem_report.sh --format txt,json,csv
set -eu
CDPATH='' cd -- "$(dirname -- "$0")"
. ./setup.sh

# cityscapes (1x3x1024x2048)
"$PYTHON" mem.py --model mobilenet_v2 --input cityscapes --out memory_reports "$@"
"$PYTHON" mem.py --model resnet18 --input cityscapes --out memory_reports "$@"
"$PYTHON" mem.py --model resnet34 --input cityscapes --out memory_reports "$@"
"$PYTHON" mem.py --model resnet50 --input cityscapes --out memory_reports "$@"
"$PYTHON" mem.py --model resnet101 --input cityscapes --out memory_reports "$@"

# pascal (1x3x500x334)
"$PYTHON" mem.py --model mobilenet_v2 --input pascal --out memory_reports "$@"
"$PYTHON" mem.py --model resnet18 --input pascal --out memory_reports "$@"
"$PYTHON" mem.py --model resnet34 --input pascal --out memory_reports "$@"
"$PYTHON" mem.py --model resnet50 --input pascal --out memory_reports "$@"
"$PYTHON" mem.py --model resnet101 --input pascal --out memory_reports "$@"
