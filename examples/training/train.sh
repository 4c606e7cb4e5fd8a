#!/bin/sh
# Makes what lies in this folder: a training on scikit-learn's digits with everything that it leaves, how long it was
# expected to take, a sweep, and a training step taken apart. Some minutes on two CPU cores.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/../.."
. ./setup.sh

model=examples/training/reader.py:reader
out=examples/training

"$PYTHON" -m layerbench estimate training-time --model "$model" --data digits --size 16 --batch 32 --epochs 12 \
    --device cpu --out "$out"
"$PYTHON" train.py --model "$model" --data digits --size 16 --batch_size 32 --epochs 12 --lr 0.01 \
    --device cpu --output_dir "$out/outputs" "$@"
"$PYTHON" -m layerbench sweep --models "$model,resnet18,mobilenet_v2" --sizes 64,128 --batches 1,2,4,...,16 --seconds 3 \
    --device cpu --runs "$out/outputs" --out "$out/sweep"
"$PYTHON" -m layerbench train-profile --model resnet18 --input 8x3x64x64 --device cpu --out "$out"
