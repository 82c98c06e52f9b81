"""`python -m darkroom_api.convert [--image IMAGE] [FILE ...]`: manifests of others in, ours out.

Reads YAML from the files or from standard input, writes ours to standard output. What has no counterpart stands as comments above
each object, and on standard error. Exit code 1: a document could not be converted, and nothing was written. Needs PyYAML.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from darkroom_api.convert import Converted, convert
from darkroom_api.convert.source import ConversionError


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m darkroom_api.convert", description=(__doc__ or "").split("\n", 1)[1]
    )
    parser.add_argument("file", nargs="*", type=Path, help="manifests; none: standard input")
    parser.add_argument("--image", help="container image, where a manifest leaves it to a runtime")
    options = parser.parse_args(arguments)
    try:
        made = [convert(document, image=options.image) for document in documents(options.file)]
    except ConversionError as error:
        print(f"convert: {error}", file=sys.stderr)
        return 1
    for lost in (line for converted in made for line in converted.lost):
        print(f"convert: not carried over: {lost}", file=sys.stderr)
    print("---\n".join(text(converted) for converted in made), end="")
    return 0


def documents(files: Sequence[Path]) -> Iterator[Any]:
    """Every YAML document of the files, or of standard input."""
    import yaml

    for name, content in [(str(file), file.read_text()) for file in files] or [("standard input", sys.stdin.read())]:
        try:
            yield from (document for document in yaml.safe_load_all(content) if document is not None)
        except yaml.YAMLError as error:
            raise ConversionError(f"{name}: {error}") from error


def text(converted: Converted) -> str:
    """An object as YAML, below what it lacks."""
    import yaml

    lines = [f"#   {' '.join(str(lost).split())}" for lost in converted.lost]
    head = ["# Not carried over:", *lines] if lines else []
    return "".join(f"{line}\n" for line in head) + yaml.safe_dump(converted.body, sort_keys=False, width=120)


if __name__ == "__main__":
    sys.exit(main())
