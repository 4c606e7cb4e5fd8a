#!/bin/sh
# Reproduces the structure dumps under model_structures/.
# Arguments are passed on, paths in them are read from the repository root:
#
#     sh summary.sh --format txt,json,csv
set -eu
CDPATH='' cd -- "$(dirname -- "$0")"
. ./setup.sh

# cityscapes (1x3x1024x2048)
"$PYTHON" mem.py --struct --model mobilenet_v2 --input cityscapes --out model_structures "$@"
"$PYTHON" mem.py --struct --model resnet18 --input cityscapes --out model_structures "$@"
"$PYTHON" mem.py --struct --model resnet34 --input cityscapes --out model_structures "$@"
"$PYTHON" mem.py --struct --model resnet50 --input cityscapes --out model_structures "$@"
"$PYTHON" mem.py --struct --model resnet101 --input cityscapes --out model_structures "$@"

# pascal (1x3x500x334)
"$PYTHON" mem.py --struct --model mobilenet_v2 --input pascal --out model_structures "$@"
"$PYTHON" mem.py --struct --model resnet18 --input pascal --out model_structures "$@"
"$PYTHON" mem.py --struct --model resnet34 --input pascal --out model_structures "$@"
"$PYTHON" mem.py --struct --model resnet50 --input pascal --out model_structures "$@"
"$PYTHON" mem.py --struct --model resnet101 --input pascal --out model_structures "$@"
