#!/usr/bin/env bash
# Everything to be measured on a machine with a GPU, in one call; see --help.
set -eu

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH}
export PYTHONUNBUFFERED=1

# Packages that the machine lacks are carried along as wheels.
if [[ -d $here/.whl ]] && ! "$python" -c 'import ml_collections' 2>/dev/null; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$python" -m pip install -q --no-index --no-deps --no-compile \
    --no-cache-dir --target "$site" "$here"/.whl/*.whl
  export PYTHONPATH=$PYTHONPATH:$site
fi

"$python" "$here/launch/gpu_check.py" "$@"
