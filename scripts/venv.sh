#!/bin/sh
# venv.sh FOLDER REQUIREMENTS: makes the virtual environment, or leaves it alone when it has what is wanted already.
set -eu

folder=$1
requirements=$2
cd "$(dirname "$0")/.."
python=$(sh scripts/python.sh)
wanted=$({ "$python" -VV && cat "$requirements"; } | cksum)

if [ "$(cat "$folder/.made" 2>/dev/null)" = "$wanted" ] && "$folder/bin/python" -c '' 2>/dev/null; then
    exit 0
fi

echo "==> $folder: $(grep -v '^#' "$requirements" | tr '\n' ' ')from PyPI, for $("$python" -V)"
"$python" -m venv --clear "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-input -r "$requirements" || {
    echo "==> pip could not install $requirements; is PyPI in reach?" >&2
    exit 1
}
echo "$wanted" >"$folder/.made"
