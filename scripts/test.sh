#!/usr/bin/env bash
# Every test. The last lines are pytest's summary, and the exit code is its own.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/check.sh --no-tests
exec .venv/bin/python -m pytest "$@"
