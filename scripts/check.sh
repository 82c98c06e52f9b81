#!/usr/bin/env bash
# The fast loop: everything that needs no cluster and no training.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH" PYTHONPATH="operator:trainer-image:." MYPYPATH="operator:trainer-image"

step() { printf '== %s\n' "$1"; shift; "$@"; }

step format ruff format --check --quiet .
step lint ruff check --quiet .
step types mypy
step contracts lint-imports --no-cache
step generated python scripts/generate.py --check
if [ "${1:-}" != "--no-tests" ]; then
  step "pure tests" python -m pytest -q -m "not cluster and not real" tests/api tests/chart tests/core tests/shell
fi
