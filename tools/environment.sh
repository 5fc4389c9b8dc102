#!/usr/bin/env bash
# environment.sh VENV default|oldest|installed|newest: makes VENV with that Python of this machine, unless it is there already.
set -euo pipefail
venv=$1
wanted=$(python3 tools/interpreters.py "$2")
if [ -x "$venv/bin/python" ] && [ "$(cat "$venv/.made-with" 2>/dev/null)" = "$wanted" ]; then exit 0; fi
rm -rf "$venv"
if [ -x .venv/bin/uv ]; then
  .venv/bin/uv venv --quiet --python "$wanted" "$venv"
else
  "$wanted" -m venv "$venv"
fi
printf '%s\n' "$wanted" >"$venv/.made-with"
