#!/usr/bin/env bash
# Set-up of a fresh machine, step by step; each step says what it does and does nothing where nothing is missing.
#   scripts/setup.sh all | python | lock
set -euo pipefail
cd "$(dirname "$0")/.."

UV_VERSION=0.13.9
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/darkroom"
UV="$CACHE/uv-$UV_VERSION/bin/uv"

say() { printf '[setup %3ds] %s\n' "$SECONDS" "$*"; }

install_uv() { # uv installs from its cache by hard links: torch's 5 GB exist once, whatever the number of checkouts
  [ -x "$UV" ] && return
  say "uv $UV_VERSION (once)"
  mkdir -p "$CACHE"
  python3 -m venv "$CACHE/uv-$UV_VERSION"
  "$CACHE/uv-$UV_VERSION/bin/pip" install --quiet "uv==$UV_VERSION"
}

uv_settings() { # uv does not read pip's settings: carry over an index, where pip has one, and the machine's certificates
  local index
  index="$(python3 -m pip config get global.index-url 2>/dev/null || printf '%s' "${PIP_INDEX_URL:-}")"
  if [ -n "$index" ]; then export UV_DEFAULT_INDEX="$index"; fi
  export UV_SYSTEM_CERTS=true UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-300}"
}

install_python() {
  local stamp=.venv/.constraints
  if [ -f "$stamp" ] && cmp -s constraints.txt "$stamp"; then return; fi
  install_uv
  uv_settings
  say "Python environment in .venv (cold: about 3 minutes, mostly torch; then seconds)"
  [ -x .venv/bin/python ] || "$UV" venv --quiet --python 3.11 .venv
  "$UV" pip sync --quiet --python .venv/bin/python --require-hashes constraints.txt
  cp constraints.txt "$stamp"
}

lock() { # --universal: one file for every Python and platform; it names no host
  install_uv
  uv_settings
  "$UV" pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --quiet --upgrade \
    --no-emit-index-url --no-emit-find-links --no-header --no-annotate --output-file constraints.txt
}

install_cluster() {
  say "Debian packages and Kubernetes binaries (cold: about 8 minutes; then nothing)"
  .venv/bin/python -m localcluster setup
}

install_test_tools() { # what only tests run: Helm 3, kubeconform, health checks, Prometheus and promtool, a clock that is wrong
  .venv/bin/python -m tests.tools
  take_from_package prometheus "$CACHE/bin" prometheus promtool
  take_from_package libfaketime "$CACHE/lib" libfaketimeMT.so.1
}

take_from_package() { # files of a Debian package, by name; nothing of it is installed or started
  local package="$1" target="$2" folder name
  shift 2
  for name in "$@"; do [ -e "$target/$name" ] || break; done
  [ -e "$target/$name" ] && return
  say "$*, out of Debian's package $package"
  folder="$(mktemp -d)"
  chmod 755 "$folder"
  (cd "$folder" && { quietly apt-get download "$package" || { quietly apt-get update && quietly apt-get download "$package"; }; })
  dpkg --extract "$folder/$package"_*.deb "$folder"
  for name in "$@"; do find "$folder" -type f -name "$name" -exec install -D -t "$target" {} +; done
  rm -r "$folder"
}

quietly() { # show what a command said only if it failed
  local log
  log="$("$@" 2>&1)" || { printf '%s\n' "$log" >&2; return 1; }
}

case "${1:-all}" in
  python) install_python ;;
  lock) lock ;;
  all)
    install_python
    install_cluster
    install_test_tools
    say "ready"
    ;;
  *)
    echo "usage: scripts/setup.sh all|python|lock" >&2
    exit 2
    ;;
esac
