#!/bin/sh
# Makes what lies in this folder: what a training of Swin-B takes on every GPU that is known, and a ConvNeXt-T layer by
# layer on one of them. Nothing is measured, so that every machine gives the same. The prices are made up. Half a minute
# on two CPU cores.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/../.."
. ./setup.sh

out=examples/prediction

"$PYTHON" -m layerbench estimate gpus --model swin_b --train --optimizer adamw --precision amp \
    --samples 1281167 --epochs 90 --price t4=0.35,l4=0.7,a10g=1,v100=2.5,a100=1.8,h100=3 \
    --format txt,json --out "$out" "$@"
"$PYTHON" -m layerbench estimate latency --model convnext_tiny --input 32x3x224x224 --precision amp \
    --device rtx4090 --format txt,json --out "$out" "$@"
