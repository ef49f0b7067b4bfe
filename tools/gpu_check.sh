#!/usr/bin/env bash
# Run the check on a machine without a package index, in the root of the project, with .gpu made by
# gpu_pack.sh: bash tools/gpu_check.sh --seconds 470. Other arguments: those of tools.gpu_check.
set -u
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
site=${SITE:-/tmp/gpu_site}
if [ ! -f "$site/.done" ]; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
    --target "$site" "$root"/.gpu/*.whl || exit 3
  touch "$site/.done"
fi
export PYTHONPATH=$site:$root
cd "$root" && exec python3 -m tools.gpu_check all --out "${OUT:-results/gpu}" "$@"
