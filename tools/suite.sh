#!/usr/bin/env bash
# suite.sh VENV [pytest's options]: runs the suite against the wheel that is installed in VENV, never against the source tree.
set -euo pipefail
venv=$1
shift
"$venv/bin/python" - <<'PYTHON'
import platform, sys
from importlib.metadata import version
names = ("failpath-otel", "opentelemetry-sdk", "sqlalchemy", "starlette")
print(f"Python {platform.python_version()},", ", ".join(f"{name} {version(name)}" for name in names), flush=True)
PYTHON
# The pytest script does not put the current folder on the path (`python -m pytest` would), so the wheel is what is imported.
FAILPATH_TEST_INSTALLED=1 exec "$venv/bin/pytest" -q "$@"
