#!/usr/bin/env bash
# Makes sure that there is a redis-server for the tests with a real broker; says what to do where that is not possible.
set -euo pipefail
if command -v redis-server >/dev/null || [ -n "${FAILPATH_REDIS:-}" ]; then exit 0; fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing Debian's redis-server for the tests with a real broker"
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 # the latter: the tests start their own, the package shall start none
  { apt-get -qq update && apt-get -qq install --yes --no-install-recommends redis-server; } >/dev/null </dev/null && exit 0
fi
echo "no redis-server found: install one (apt-get install redis-server) or set FAILPATH_REDIS to its path; tests with it are skipped" >&2
