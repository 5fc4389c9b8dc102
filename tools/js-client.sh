#!/usr/bin/env bash
# Installs the OpenTelemetry JS SDK of tests/server/conformance/js/package.json into a cache in the home directory. What is there is left alone.
# js-client.sh --where: prints the cache's folder for these versions, installs nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
manifest=tests/server/conformance/js/package.json
key=$({ sha256sum "$manifest" 2>/dev/null || shasum -a 256 "$manifest"; } | cut -c1-16)
folder=${XDG_CACHE_HOME:-$HOME/.cache}/failpath-otel/js-client/$key
if [ "${1:-}" = --where ]; then echo "$folder"; exit 0; fi

without() {
  echo "no JS client: $1; tests with it are skipped" >&2
  exit 0
}

if [ -d "$folder" ]; then exit 0; fi
command -v node >/dev/null && command -v npm >/dev/null || without "Node is not installed"

# Installed beside its place and then moved, so that what is in the cache is whole.
mkdir -p "$(dirname "$folder")"
work=$(mktemp -d "$(dirname "$folder")/.install-XXXXXX")
trap 'rm -rf "$work"' EXIT
cp "$manifest" "$work/"
npm install --prefix "$work" --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error >"$folder.log" 2>&1 ||
  { tail -n 5 "$folder.log" >&2; without "it could not be installed"; }
# Whoever was first has installed the same.
[ -d "$folder" ] || mv "$work" "$folder"
echo "installed the OpenTelemetry JS SDK: $folder"
