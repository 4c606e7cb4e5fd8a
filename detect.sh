#!/bin/sh
# Fine-tunes a detector as .config/config.toml says and takes its training apart. Arguments are
# passed on, paths in them are read from the repository root:
#
#     sh detect.sh --device cpu --limit 20
set -eu
CDPATH='' cd -- "$(dirname -- "$0")"
. ./setup.sh

"$PYTHON" -m layerbench detect "$@"
