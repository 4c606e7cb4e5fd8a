#!/bin/sh
# Reproduces the reports under cpu/stats/: CPU only, with one thread and with all threads.
# Arguments are passed on, paths in them are read from the repository root:
#
#     sh cpu/stats.sh --iterations 20
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."
. ./setup.sh

# pascal (1x3x500x334), one thread
"$PYTHON" timer.py --device cpu --threads 1 --model mobilenet_v2 --input pascal --sentences --out cpu/stats "$@"
"$PYTHON" timer.py --device cpu --threads 1 --model resnet18 --input pascal --sentences --out cpu/stats "$@"
"$PYTHON" timer.py --device cpu --threads 1 --model resnet34 --input pascal --sentences --out cpu/stats "$@"
"$PYTHON" timer.py --device cpu --threads 1 --model resnet50 --input pascal --sentences --out cpu/stats "$@"
"$PYTHON" timer.py --device cpu --threads 1 --model resnet101 --input pascal --sentences --out cpu/stats "$@"

# pascal, all threads
"$PYTHON" timer.py --device cpu --model mobilenet_v2 --input pascal --sentences --out cpu/stats "$@"
"$PYTHON" timer.py --device cpu --model resnet18 --input pascal --sentences --out cpu/stats "$@"
"$PYTHON" timer.py --device cpu --model resnet34 --input pascal --sentences --out cpu/stats "$@"
"$PYTHON" timer.py --device cpu --model resnet50 --input pascal --sentences --out cpu/stats "$@"
"$PYTHON" timer.py --device cpu --model resnet101 --input pascal --sentences --out cpu/stats "$@"

# cityscapes (1x3x1024x2048), one thread
"$PYTHON" timer.py --device cpu --threads 1 --model mobilenet_v2 --input cityscapes --sentences --out cpu/stats "$@"
