#!/usr/bin/env bash
# Makes sure that there is a Chromium for the browser tests and the screenshots; says what to do where that is not possible.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do
  if command -v "$name" >/dev/null; then exit 0; fi
done
if [ -n "${FAILPATH_CHROMIUM:-}" ]; then exit 0; fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing Debian's chromium for the browser tests"
  export DEBIAN_FRONTEND=noninteractive
  { apt-get -qq update && apt-get -qq install --yes --no-install-recommends chromium fonts-dejavu-core; } >/dev/null </dev/null && exit 0
fi
echo "no Chromium found: install one (apt-get install chromium) or set FAILPATH_CHROMIUM to its path; browser tests are skipped" >&2
