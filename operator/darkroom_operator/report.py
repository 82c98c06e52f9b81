"""`python -m darkroom_operator.report FILE`: a sweep as one HTML page, or as a study for notebooks.

    kubectl get ts flowers -o json | python -m darkroom_operator.report - --html flowers.html --study flowers.log

A long search keeps its oldest trials in ConfigMaps. They must come with it, in a file of their own:

    kubectl get cm -l darkroom.dev/tuning-sweep=flowers -o json > pages.json
    python -m darkroom_operator.report flowers.json --pages pages.json --html flowers.html

The page holds everything it needs. The study is a journal file of Optuna:
`optuna.load_study(study_name="vision/flowers", storage=JournalStorage(JournalFileBackend("flowers.log")))`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from darkroom_api import names
from darkroom_operator.core.tuning_sweep.ledger import Page, read_page
from darkroom_operator.core.tuning_sweep.page import page
from darkroom_operator.core.tuning_sweep.study import Seen, fill, importances, look


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 for what is no readable TuningSweep, and for a study that exists."""
    parser = argparse.ArgumentParser(
        prog="python -m darkroom_operator.report", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("file", help="a TuningSweep as JSON; -: standard input")
    parser.add_argument("--pages", type=Path, help="a List of the ConfigMaps of a long search, as JSON")
    parser.add_argument("--html", type=Path, help="write the page here")
    parser.add_argument("--study", type=Path, help="write a journal file of Optuna here")
    options = parser.parse_args(arguments)
    if options.html is None and options.study is None:
        parser.error("give --html, --study or both")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        body = json.loads(sys.stdin.read() if options.file == "-" else Path(options.file).read_text())
        if body.get("kind") != "TuningSweep":
            raise ValueError(f"{options.file} is no TuningSweep")
        pages = read_pages(options.pages) if options.pages else []
        seen = look(body, datetime.now(UTC), pages)
        if seen is None:
            raise ValueError(f"{options.file}: its spec cannot be read")
        require_all(seen)
        if options.study:
            export(seen, options.study)
    except (ValueError, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    if options.html:
        options.html.write_text(page(body, seen, importances(seen)), encoding="utf-8")
    return 0


def read_pages(file: Path) -> list[Page]:
    """Those ConfigMaps of a List that are pages of a ledger."""
    items = json.loads(file.read_text()).get("items", [])
    return [found for item in items if (found := read_page(item))]


def require_all(seen: Seen) -> None:
    """Raises ValueError where a page of the sweep is missing."""
    if page := seen.missing:
        namespace, _, name = seen.name.partition("/")
        raise ValueError(
            f"the ConfigMap {page.name} has {page.rows} of its trials: give --pages FILE, made by kubectl get configmaps "
            f"--namespace {namespace} --selector {names.LABEL_SWEEP}={name} --output json"
        )


def export(seen: Seen, file: Path) -> None:
    """A new journal file with the sweep as a study."""
    if file.exists():
        raise ValueError(f"{file} exists: a study is written anew, not added to")
    fill(JournalStorage(JournalFileBackend(str(file))), [seen])


if __name__ == "__main__":
    sys.exit(main())
