"""`make bench`: run every benchmark, print its findings, and keep them in bench/results/<name>.json.

BENCH="NAME..." chooses some of them, and those that take an hour only run when they are chosen.
"""

import importlib
import json
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

NAMES = (
    "automl",
    "budget",
    "control_plane",
    "data",
    "failover",
    "ledger",
    "memory_format",
    "pruning",
    "search",
    "synthetic",
    "transfer",
)
LONG = ("chaos", "scale")
RESULTS = Path(__file__).parent / "results"


def main(chosen: list[str]) -> None:
    """Run the benchmarks of these names, or all."""
    RESULTS.mkdir(exist_ok=True)
    for name in chosen or NAMES:
        if name not in (*NAMES, *LONG):
            sys.exit(f"no benchmark {name!r}; there are: {', '.join((*NAMES, *LONG))}")
        findings = importlib.import_module(f"bench.{name}").run()
        record = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "python": platform.python_version(), "findings": findings}
        (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
        print(json.dumps(findings, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
