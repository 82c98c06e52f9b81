"""`python -m darkroom_api.expand [FILE ...]`: TuningSweeps with `auto` in, the full search that each stands for out.

Reads YAML from the files or from standard input. What it writes can be changed and applied. Exit code 1: a document is no
TuningSweep with `auto`, or not a valid one. Needs PyYAML.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from darkroom_api.automl import expand, manifest
from darkroom_api.v1alpha1.auto import AutoSweep
from darkroom_api.v1alpha1.common import describe_errors


class NotAutomatic(ValueError):  # noqa: N818 - reads as what it is
    """A document that there is nothing to expand in; the message says why."""


def expanded(document: Any) -> dict[str, Any]:
    """The TuningSweep to apply."""
    if not isinstance(document, Mapping) or document.get("kind") != "TuningSweep":
        raise NotAutomatic("the document is no TuningSweep")
    if "auto" not in (document.get("spec") or {}):
        raise NotAutomatic("spec.auto is absent: the search is said in full already")
    try:
        sweep = AutoSweep.from_wire(json.dumps(document["spec"]))
    except ValidationError as error:
        raise NotAutomatic("; ".join(describe_errors(error, "spec"))) from error
    meta = document.get("metadata") or {}
    return manifest(str(meta.get("name", "sweep")), meta.get("namespace"), expand(sweep))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    import yaml

    parser = argparse.ArgumentParser(
        prog="python -m darkroom_api.expand", description=(__doc__ or "").split("\n", 1)[1]
    )
    parser.add_argument("file", nargs="*", type=Path, help="manifests; none: standard input")
    files = parser.parse_args(arguments).file
    try:
        texts = [file.read_text() for file in files] or [sys.stdin.read()]
        made = [expanded(body) for text in texts for body in yaml.safe_load_all(text) if body is not None]
    except (NotAutomatic, yaml.YAMLError) as error:
        print(f"expand: {error}", file=sys.stderr)
        return 1
    print("---\n".join(yaml.safe_dump(body, sort_keys=False, width=120) for body in made), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
