#!/bin/sh
# Makes what lies in this folder: a compiled ResNet-18 with its kernels and the layers in them, and the model as it is
# beside the compiled one, layer by layer. Two minutes on two CPU cores with --iterations 100,
# as here.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/../.."
. ./setup.sh

out=examples/compiled

"$PYTHON" timer.py --model resnet18 --compile --kernels --threads 1 --device cpu --out "$out" "$@"
# Its status is 1 where a layer is slower, as one is here.
"$PYTHON" -m layerbench compare --live "resnet18 --threads 1 --device cpu" "resnet18 --compile --threads 1 --device cpu" \
    --kernels --out "$out" "$@" || [ $? -eq 1 ]
