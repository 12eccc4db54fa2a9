#!/bin/sh
# Installs what building and testing need and is missing: by apt-get as root on Debian and Ubuntu; elsewhere it names
# the commands and stops.
set -eu

say() { echo "==> $*"; }
die() { echo "==> $*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

rust_missing() {
    echo "Rust is missing. Install it and run this again:"
    echo "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . \"\$HOME/.cargo/env\""
}

# Can this Python make virtual environments, and is its shared library there? Prints what is missing.
python_lacks() {
    "$1" - <<'PYTHON'
import os, sys, sysconfig

library = "libpython%d.%d.so.1.0" % sys.version_info[:2]
folders = [os.path.join(sys.base_prefix, "lib"), sysconfig.get_config_var("LIBDIR") or ""]
lacks = []
try:
    import ensurepip
except ImportError:
    lacks.append("python3-venv")
if not any(os.path.isfile(os.path.join(folder, library)) for folder in folders):
    lacks.append("python3-dev")
print(*lacks)
PYTHON
}

otp="erlang-dev erlang-nox erlang-eunit erlang-tools"

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# The packages that are missing, by the names Debian gives them.
missing() {
    have elixir && have mix && have erl || echo elixir
    # Debian splits OTP: Mix's compilers and ExUnit need these beside what elixir depends on.
    if have dpkg-query && { ! have elixir || [ "$(command -v elixir)" = /usr/bin/elixir ]; }; then
        there=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $otp 2>/dev/null || true)
        for package in $otp; do
            case "$there" in *"installed $package"*) ;; *) echo "$package" ;; esac
        done
    fi
    # Only the system's own Python can be completed by packages.
    if [ ! -x /usr/bin/python3 ]; then
        sh scripts/python.sh >/dev/null 2>&1 || echo python3-dev python3-venv
    elif new_enough /usr/bin/python3; then
        python_lacks /usr/bin/python3
    fi
    have gcc || echo gcc
    have make || echo make
    have git || echo git
}

commands() {
    if have apt-get; then
        echo "  sudo apt-get update && sudo apt-get install --no-install-recommends $*"
    elif have dnf; then
        echo "  sudo dnf install elixir erlang python3-devel gcc make git"
    elif have pacman; then
        echo "  sudo pacman -S --needed elixir erlang python gcc make git"
    elif have zypper; then
        echo "  sudo zypper install elixir erlang python3-devel gcc make git"
    elif have brew; then
        echo "  brew install elixir python gcc make git"
    else
        echo "  (with your package manager) $*"
    fi
}

install() {
    if have apt-get && [ "$(id -u)" = 0 ]; then
        say "installing $*"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq >/dev/null || die "apt-get update failed"
        # shellcheck disable=SC2086
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null || die "apt-get could not install $*"
    else
        echo "==> missing: $*. Install it and run this again:" >&2
        commands "$@" >&2
        exit 1
    fi
}

cd "$(dirname "$0")/.."
PATH="$PATH:$HOME/.cargo/bin"

lacking=$(missing | tr '\n' ' ')
# shellcheck disable=SC2086
[ -z "${lacking## }" ] || install $lacking

have cargo || die "$(rust_missing)"

case "$(elixir --short-version 2>/dev/null)" in
    1.1[4-9]* | 1.[2-9][0-9]* | [2-9]*) ;;
    *) die "Py needs Elixir 1.14 or later, and $(command -v elixir) is older. Install a newer one: https://elixir-lang.org/install.html" ;;
esac

python=$(sh scripts/python.sh) || exit 1
lacking=$(python_lacks "$python" | tr '\n' ' ')
[ -z "${lacking## }" ] || die "$python lacks what Debian packages as $lacking: install a Python with a shared library (pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared; or uv python install 3.13)"
