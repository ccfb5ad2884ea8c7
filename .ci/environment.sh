#!/bin/sh
# Makes the environment VENV with PYTHON and installs into it all that the Makefile's targets need.
# The extension modules are built afterwards, by `setup.py build_ext`, so that a change in native/
# does not install anything again.
set -eu
python=$1
venv=$2

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  rm -rf "$venv"
  if "$python" -c 'import ensurepip' 2>/dev/null; then
    "$python" -m venv "$venv"
  elif "$python" -m pip --version >/dev/null 2>&1; then  # a distribution that keeps ensurepip in another package
    "$python" -m venv --without-pip "$venv"
    "$python" -m pip -q --python "$venv/bin/python" install pip
  else
    echo "$python can make no environment: it has neither ensurepip nor pip" >&2
    echo "(Debian and Ubuntu: apt install python3-venv python3-dev)." >&2
    exit 1
  fi
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1
"$venv/bin/python" -m pip install -q "setuptools>=77" "Cython>=3.1" "pybind11>=2.13"
# compat: a plain path entry, so that the interpreters a test starts also find taskflow and benchmarks
PYSCOPE_PURE=1 "$venv/bin/python" -m pip install -q --no-build-isolation \
  --config-settings editable_mode=compat -e ".[dev]"
