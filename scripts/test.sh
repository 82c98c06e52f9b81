#!/usr/bin/env bash
# Every test. The last lines are pytest's summary, and the exit code is its own.
# Without arguments in three processes, for most of the time is waiting; with arguments as pytest is told.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/check.sh --no-tests
if [ $# -eq 0 ]; then
  set -- --numprocesses 3 --dist loadscope --no-loadscope-reorder --durations 25
fi
exec .venv/bin/python -m pytest "$@"
