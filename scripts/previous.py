"""Keeps a version for the tests of upgrades: `python -m scripts.previous REVISION`, at a release with the tag before it.

Writes tests/chart/previous: the chart as `helm package` makes it, and the operator's packages as a zip that Python imports.
Files, because a shallow clone has no history to take them from.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "tests/chart/previous"


def main() -> None:
    revision = git("rev-parse", sys.argv[1])
    git("archive", "--prefix=darkroom/", f"--output={KEPT / 'chart.tgz'}", f"{revision}:charts/darkroom")
    packages = ("darkroom_api", "darkroom_operator")
    git("archive", f"--output={KEPT / 'operator.zip'}", f"{revision}:operator", *packages)
    (KEPT / "REVISION").write_text(f"{revision}\n")


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
