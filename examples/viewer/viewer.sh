#!/bin/sh
# Makes what lies in this folder: a report of committed records, and pictures of it and of the live
# viewer. Needs Chromium (apt-get install chromium-headless-shell). Some minutes on two CPU cores.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/../.."
. ./setup.sh

out=examples/viewer

"$PYTHON" -m layerbench report stats/amd-epyc-2c/layers/mobilenet_v2_cityscapes.json \
    model_structures/mobilenet_v2_cityscapes.json memory_reports/mobilenet_v2_cityscapes.json -o "$out/report.html"
"$PYTHON" "$out/screenshots.py" "$out"
