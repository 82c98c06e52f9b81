"""Files that others read while they are written: the old one or the new one, never a part."""

import os
from collections.abc import Callable
from pathlib import Path


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside `path`, and rename. Raises OSError, and leaves nothing behind then."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """The same, in UTF-8."""
    replace(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
