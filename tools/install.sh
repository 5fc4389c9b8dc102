#!/usr/bin/env bash
# install.sh VENV CONSTRAINTS REQUIREMENT…: installs into VENV with uv where it is there (many times faster), else with pip.
set -euo pipefail
venv=$1 constraints=$2
shift 2
uv=.venv/bin/uv
if [ -x "$uv" ]; then
  # A wheel that was built again has the same version, so it is installed anew each time.
  UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-180} UV_LINK_MODE=${UV_LINK_MODE:-copy} \
    "$uv" pip install --quiet --python "$venv/bin/python" --constraint "$constraints" --reinstall-package failpath-otel "$@"
else
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$constraints" "$@"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps "$@"
fi
