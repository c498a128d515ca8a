#!/usr/bin/env bash
# Makes .venv: an interpreter from 3.11 to 3.13, the pinned packages, FFCV's own wheel, and this checkout (editable).
# `make setup` calls it; PYTHON=... chooses the interpreter. When nothing has changed it ends at once.
set -euo pipefail
cd "$(dirname "$0")"
die() { echo "setup: $*" >&2; exit 2; }

usable() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }
if [ -n "${PYTHON:-}" ]; then
  usable "$PYTHON" || die "PYTHON=$PYTHON is not a Python from 3.11 to 3.13; give one, or leave PYTHON out"
else
  for PYTHON in python3 python3.13 python3.12 python3.11 ''; do
    [ -n "$PYTHON" ] || die "no Python from 3.11 to 3.13 was found; install one, or name it: make setup PYTHON=/path/to/python3"
    if usable "$PYTHON"; then break; fi
  done
fi
export PYTHON

# Everything that decides what is in .venv. Its own path too, since an environment cannot be moved.
version=$("$PYTHON" -c 'import sys; print(*sys.version_info[:3], sep=".")')
wanted=$({ echo "$version $PWD"; cat setup.sh pyproject.toml constraints.txt data_prep/ffcv_wheel.sh; } | sha256sum)
if [ "$(cat .venv/.ready 2>/dev/null)" = "$wanted" ]; then exit 0; fi

# System packages: only what is really missing. --no-install-recommends keeps them at about 35 MB.
packages=$(data_prep/ffcv_wheel.sh --packages)
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || packages="python${version%.*}-venv $packages"
if [ -n "$packages" ]; then
  command -v apt-get >/dev/null || die "this needs (by Debian's names): $packages"
  [ "$(id -u)" = 0 ] || die "this needs system packages: sudo apt-get install --no-install-recommends $packages"
  echo "setup: installing $packages"
  install() { DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
    -o DPkg::Lock::Timeout=120 $packages </dev/null >/dev/null; }   # $packages: several words on purpose
  install 2>/dev/null || { apt-get update -qq && install; } || die "apt-get could not install: $packages"
fi

# The wheel is built while pip installs the rest. --no-compile: Python compiles what it imports, when it does.
echo "setup: Python $version into .venv"
rm -f .venv/.ready
if [ "$(.venv/bin/python -c 'import sys; print(*sys.version_info[:3], sep=".")' 2>/dev/null)" != "$version" ]; then
  "$PYTHON" -m venv --clear .venv
fi
pip=(.venv/bin/python -m pip --disable-pip-version-check --no-input)
data_prep/ffcv_wheel.sh >.venv/ffcv-wheel &
"${pip[@]}" install -qq --no-compile -r constraints.txt || die "pip could not install constraints.txt (see above)"
wait $! || die "FFCV could not be built (see above)"
"${pip[@]}" install -qq --no-compile --no-deps --no-build-isolation "$(cat .venv/ffcv-wheel)" -e . || die "pip could not install ali-fast"
"${pip[@]}" check >.venv/pip-check || { cat .venv/pip-check >&2; die "the pins in constraints.txt contradict each other"; }
echo "$wanted" >.venv/.ready
echo "setup: done"
