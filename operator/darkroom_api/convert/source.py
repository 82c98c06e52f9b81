"""A manifest that remembers what was read of it, so that nothing is lost without a word."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


class ConversionError(ValueError):
    """There is no object of ours that would be this one; the message names the field."""


@dataclass(frozen=True)
class Lost:
    """A field that the converted object does not have, or has otherwise."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


class Source:
    """A mapping of a manifest. Reading a key, or saying why it is lost, marks it; `unread` tells what is left."""

    def __init__(self, value: Any, path: str = "", lost: list[Lost] | None = None) -> None:
        if not isinstance(value, Mapping):
            raise ConversionError(f"{path or 'the document'} must be a mapping")
        self.value, self.path = value, path
        self.lost: list[Lost] = [] if lost is None else lost
        self._read: set[str] = set()
        self._inner: dict[str, list[Source]] = {}

    def __bool__(self) -> bool:
        return bool(self.value)

    def get(self, key: str, default: Any = None) -> Any:
        """A value, which is wholly read with that."""
        self._read.add(key)
        value = self.value.get(key)
        return default if value is None else value

    def text(self, key: str) -> str | None:
        """A value as text, if it is there."""
        value = self.get(key)
        return None if value is None else str(value)

    def number(self, key: str) -> int | None:
        """A whole number, if it is there; ConversionError for anything else."""
        value = self.get(key)
        try:
            return None if value is None else int(value)
        except (TypeError, ValueError) as error:
            raise ConversionError(f"{self._at(key)}: {value!r} is not a whole number") from error

    def at(self, *keys: str) -> "Source":
        """The mapping below; an empty one where there is none."""
        here = self
        for key in keys:
            if key not in here._inner:
                here._inner[key] = [Source(here.value.get(key) or {}, here._at(key), self.lost)]
            (here,) = here._inner[key]
        return here

    def each(self, key: str) -> list["Source"]:
        """The mappings of a list; none where there is none."""
        if key not in self._inner:
            items = self.value.get(key) or []
            if not isinstance(items, list):
                raise ConversionError(f"{self._at(key)} must be a list")
            self._inner[key] = [Source(item, f"{self._at(key)}[{n}]", self.lost) for n, item in enumerate(items)]
        return self._inner[key]

    def note(self, why: str, key: str | None = None) -> None:
        """Say what is otherwise than here, or than in one of its keys."""
        self.lost.append(Lost(self._at(key) if key else self.path, why))

    def lose(self, key: str, why: str) -> None:
        """Say why a key has no counterpart, if it is there."""
        if self.get(key) is not None:
            self.note(why, key)

    def pass_over(self, *keys: str) -> None:
        """Keys without which nothing is lost."""
        self._read.update(keys)

    def unread(self) -> Iterator[str]:
        """Paths of everything that nobody looked at."""
        for key, value in self.value.items():
            if key in self._read or value is None:
                continue
            if key not in self._inner:
                yield self._at(key)
            for inner in self._inner.get(key, []):
                yield from inner.unread()

    def _at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key
