"""Unreadable images: each file counted once over all processes and epochs, skipped up to a share of its split."""

from collections.abc import Callable, Mapping, Sequence

from darkroom_trainer.errors import DataError
from darkroom_trainer.parallel import Group

_NAMED = 5


class CorruptFiles:
    """What the loaders found. Processes know the same set after each `exchange`, so all of them fail together.

    sizes: samples of each split; limit: share of a split that may be unreadable.
    """

    def __init__(self, sizes: Mapping[str, int], *, limit: float, group: Group, say: Callable[[str], None]) -> None:
        self._sizes, self._limit, self._group, self._say = sizes, limit, group, say
        self._known: dict[str, set[str]] = {split: set() for split in sizes}
        self._fresh: dict[str, list[str]] = {split: [] for split in sizes}

    def restore(self, known: Mapping[str, Sequence[str]]) -> None:
        for split, names in known.items():
            self._known.setdefault(split, set()).update(names)

    def known(self) -> dict[str, list[str]]:
        """By split, sorted: for a checkpoint."""
        return {split: sorted(names) for split, names in self._known.items() if names}

    def note(self, split: str, names: Sequence[str]) -> None:
        """Files that this process could not read."""
        self._fresh[split] += [name for name in names if name not in self._known[split]]

    @property
    def news(self) -> bool:
        return any(self._fresh.values())

    def exchange(self) -> None:
        """Make news known to all; every process must call this at the same place. Raises DataError beyond the limit."""
        for found in self._group.gather(self._fresh):
            for split, names in found.items():
                self._learn(split, names)
        self._fresh = {split: [] for split in self._sizes}
        for split, known in self._known.items():
            self._check(split, known)

    def _learn(self, split: str, names: Sequence[str]) -> None:
        fresh = sorted(set(names) - self._known[split])
        self._known[split].update(fresh)
        if fresh:
            total = len(self._known[split])
            self._say(f"skipped unreadable images of {split} ({total} of {self._sizes[split]}): {_list(fresh)}")

    def _check(self, split: str, known: set[str]) -> None:
        size = self._sizes.get(split, 0)
        if size and len(known) > self._limit * size:
            raise DataError(
                f"{len(known)} of {size} images of {split} cannot be read, more than vision.data.maxCorruptFraction "
                f"({self._limit:g}) allows: {_list(sorted(known))}"
            )


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
