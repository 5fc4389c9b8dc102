#!/usr/bin/env bash
# Puts Debian's Prometheus into a cache in the home directory, for the test of the Grafana dashboard. What is there is left alone.
# prometheus.sh --where: prints the path of the program, found or to be made.
set -euo pipefail
folder=${XDG_CACHE_HOME:-$HOME/.cache}/failpath-otel/prometheus
program=$(command -v prometheus || echo "$folder/usr/bin/prometheus")
if [ "${1:-}" = --where ]; then echo "$program"; exit 0; fi
if [ -x "$program" ]; then exit 0; fi
without() {
  echo "no Prometheus: $1; the test of the Grafana dashboard is skipped" >&2
  exit 0
}
command -v apt-get >/dev/null && command -v dpkg >/dev/null || without "install it, or put it on the path"
mkdir -p "$(dirname "$folder")"
work=$(mktemp -d "$(dirname "$folder")/.build-XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
# Not installed, only unpacked: nothing of the machine changes. The list of packages may be older than the packages.
{ apt-get -qq download prometheus || { apt-get -qq update && apt-get -qq download prometheus; }; } >apt.log 2>&1 </dev/null ||
  without "its package cannot be had: $(tail -n 1 apt.log)"
dpkg -x prometheus_*.deb unpacked
[ -d "$folder" ] || mv unpacked "$folder"
