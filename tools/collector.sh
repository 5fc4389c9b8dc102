#!/usr/bin/env bash
# Builds the Collector of collector-config/builder.yaml, and telemetrygen, into a cache in the home directory. What is there is left alone.
# collector.sh --where: prints the cache's folder for this manifest, builds nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
manifest=collector-config/builder.yaml
# The test load generator; its modules need not be of the Collector's release.
telemetrygen=v0.161.0
# The builder is of the release that it builds.
builder=v$(sed -nE 's/^ +version: ([0-9.]+)$/\1/p' "$manifest")
key=$({ cat "$manifest"; echo "$telemetrygen"; uname -sm; } | { sha256sum 2>/dev/null || shasum -a 256; } | cut -c1-16)
folder=${XDG_CACHE_HOME:-$HOME/.cache}/failpath-otel/collector/$key
if [ "${1:-}" = --where ]; then echo "$folder"; exit 0; fi

without() {
  echo "no Collector: $1; tests that send data through one are skipped" >&2
  exit 0
}

[ -z "${OTELCOL:-}" ] || exit 0
if [ -x "$folder/otelcol-failpath" ] && [ -x "$folder/telemetrygen" ]; then exit 0; fi
command -v go >/dev/null || without "Go is not installed (or set OTELCOL to the path of a Collector)"

# Built beside its place and then moved, so that what is in the cache is whole.
mkdir -p "$(dirname "$folder")"
work=$(mktemp -d "$(dirname "$folder")/.build-XXXXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cp "$manifest" "$work/builder.yaml"
cd "$work"
echo "building a Collector (once for each change of $manifest, some minutes; the log is in $folder.log)"
began=$SECONDS
{
  # Modules come from a proxy; without this a missing one is looked for in its repository, which may hang.
  export GOVCS='*:off' GOFLAGS="-p=2 -modcacherw ${GOFLAGS:-}" CGO_ENABLED=0
  go run "go.opentelemetry.io/collector/cmd/builder@$builder" --config builder.yaml --skip-strict-versioning=false &&
    mkdir generator && cd generator && go mod init generator &&
    go get "github.com/open-telemetry/opentelemetry-collector-contrib/cmd/telemetrygen@$telemetrygen" &&
    go build -trimpath -ldflags '-s -w' -o telemetrygen github.com/open-telemetry/opentelemetry-collector-contrib/cmd/telemetrygen
} >"$folder.log" 2>&1 || { tail -n 5 "$folder.log" >&2; without "it could not be built"; }
mkdir "$work/done"
mv "$work/build/otelcol-failpath" "$work/generator/telemetrygen" "$work/done/"
# Whoever was first has built the same.
[ -d "$folder" ] || mv "$work/done" "$folder"
echo "built in $((SECONDS - began)) s: $(du -h "$folder/otelcol-failpath" | cut -f1) $folder/otelcol-failpath"
