#!/bin/sh
# cargo.sh ARGUMENTS: runs cargo as `mix compile` does, for the Python of VIRTUAL_ENV or scripts/python.sh, in the same
# folder. Test programs are linked to its libpython (PY_TEST_LIBPYTHON, read by native/core/build.rs) and boot it
# (PY_TEST_PYTHON). With --shared as its first argument it works on what all versions of Python share.
set -eu

cd "$(dirname "$0")/.."
python=${VIRTUAL_ENV:+$VIRTUAL_ENV/bin/python}
python=${python:-$(sh scripts/python.sh)}

eval "$("$python" - <<'PYTHON'
import os, shlex, struct, sys, sysconfig

minor = "%d.%d" % sys.version_info[:2]
library = sysconfig.get_config_var("INSTSONAME") or ""
folders = [os.path.join(sys.base_prefix, "lib"), sysconfig.get_config_var("LIBDIR") or ""]
found = next((p for p in (os.path.join(f, library) for f in folders) if library and os.path.isfile(p)), "")
print("minor=%s width=%d library=%s" % (minor, 8 * struct.calcsize("P"), shlex.quote(found)))
PYTHON
)"

folder=$minor abi3=false
if [ "$1" = --shared ]; then
    shift
    folder=base minor=3.11 abi3=true
fi

export CARGO_TARGET_DIR="${PY_TARGET_DIR:-$PWD/_build/native}/$folder"
export PYO3_CONFIG_FILE="$CARGO_TARGET_DIR/pyo3.config"
export RUSTLER_PRIMARY_NIF_INIT=1
case "$1" in
    test | clippy)
        export PY_TEST_LIBPYTHON="$library" PY_TEST_PYTHON="$python"
        export LD_LIBRARY_PATH="$(dirname "$library")${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
        ;;
esac
export PATH="$PATH:$HOME/.cargo/bin"
unset PYO3_NO_PYTHON PYO3_PYTHON CARGO_BUILD_TARGET

mkdir -p "$CARGO_TARGET_DIR"
config="implementation=CPython
version=$minor
shared=true
abi3=$abi3
pointer_width=$width
suppress_build_script_link_lines=true"
# A newer file would make cargo build again what read it.
[ "$(cat "$PYO3_CONFIG_FILE" 2>/dev/null)" = "$config" ] || echo "$config" >"$PYO3_CONFIG_FILE"

[ "$1" != --target-dir ] || { echo "$CARGO_TARGET_DIR"; exit; }
exec cargo "$@"
