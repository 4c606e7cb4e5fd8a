#!/bin/sh
# Makes what lies in this folder: what torchvision's detectors take, and the training of one taken apart. Half an hour on
# two CPU cores.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/../.."
. ./setup.sh

out=examples/detection

"$PYTHON" -m layerbench estimate detection --models all --batch 2 --epochs 3 --samples 50000 --warmup 1 --steps 2 --seconds 0 --no-content \
    --device cpu --out "$out" --format txt,json,md,csv
"$PYTHON" -m layerbench detect --model fasterrcnn_mobilenet_v3_large_320_fpn --data synthetic --samples 60 \
    --device cpu --tune --profile_steps 2 --no-save_weights --output_dir "$out/outputs" "$@"
