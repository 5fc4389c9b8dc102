#!/usr/bin/env bash
# Builds the dashboard into failpath_otel/server/static; needs Node and the development environment (make ui).
# ui.sh --check: builds beside and fails where what is committed differs.
# ui.sh --install: only fetches what the build and the tests of the page need.
set -euo pipefail
cd "$(dirname "$0")/.."
ui=$PWD/failpath_otel/server/ui
static=$PWD/failpath_otel/server/static
if ! command -v npm >/dev/null; then
  echo "no Node: the dashboard is not built anew, and tests of its accessibility are skipped" >&2
  if [ -n "${CI:-}" ]; then exit 1; fi
  exit 0
fi
cd "$ui"
# The versions are exact, so no lock file is needed to have the same bundle.
if ! cmp -s package.json node_modules/.package.json; then
  npm install --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error
  cp package.json node_modules/.package.json
fi
if [ "${1:-}" = --install ]; then exit 0; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-../../../.venv/bin/python}" -c "import msgspec; from failpath_otel.server.routes.openapi import document; print(msgspec.json.encode(document()).decode())" >"$work/openapi.json"
npx openapi-typescript "$work/openapi.json" --output "$work/api.gen.ts" >/dev/null
if [ "${1:-}" = --check ]; then
  cmp "$work/api.gen.ts" src/api.gen.ts || { echo "the types of the API are old: make ui" >&2; exit 1; }
else
  cp "$work/api.gen.ts" src/api.gen.ts
fi
npx tsc --noEmit
if [ "${1:-}" != --check ]; then
  node build.mjs "$static"
  exit 0
fi
node build.mjs "$work"
for file in app.js app.css licenses.txt; do
  cmp "$work/$file" "$static/$file" || { echo "static/$file is not what the sources give: make ui" >&2; exit 1; }
done
