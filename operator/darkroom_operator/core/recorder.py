"""Which Events are written: repeats are counted in one Event, similar ones combined, and each object has a budget.

The limits are those of client-go's recorder (tools/record/events_cache.go). One thing differs: the first Event of a reason is
never kept back, so that an end is told however noisy the way to it was.
"""

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from darkroom_operator.core.types import Event

SERIES_SECONDS = 600.0
"""A repeat within this time of the last is counted; later ones are a new Event."""
SIMILAR = 10
"""Different notes of one reason within that time; the others share one Event."""
BURST, REFILL_SECONDS = 25.0, 300.0
"""Writes about one object: so many at once, and one more every so many seconds."""
COMBINED = "(combined from similar events): "
"""Begins the note of an Event that stands for others, as client-go has it."""
_Kind = tuple[str, str, str]
"""Type, reason and action."""


@dataclass(frozen=True)
class Write:
    """An Event to create, or, with a name, one whose series goes on."""

    event: Event
    count: int
    name: str | None = None


@dataclass
class _Series:
    last: datetime
    count: int = 0
    name: str | None = None


@dataclass
class _Memory:
    """What was told about one object."""

    filled: datetime
    tokens: float = BURST
    series: dict[tuple[_Kind, str], _Series] = field(default_factory=dict)


class Recorder:
    """Remembers what was told about each of the newest `limit` objects, by UID."""

    def __init__(self, limit: int = 2000) -> None:
        self._limit = limit
        self._memories: OrderedDict[str, _Memory] = OrderedDict()

    def next_write(self, uid: str, event: Event, now: datetime) -> Write | None:
        """What to write about an object to which `event` happened; None: it is counted, and kept back for now."""
        memory = self._memory(uid, now)
        event = _combined(memory, event)
        first = not any(kind == _kind(event) for kind, _ in memory.series)
        series = memory.series.setdefault((_kind(event), event.note), _Series(now))
        series.count, series.last = series.count + 1, now
        if memory.tokens < 1 and not first:
            return None
        memory.tokens = max(0.0, memory.tokens - 1)
        return Write(event, series.count, series.name)

    def written(self, uid: str, write: Write, name: str | None) -> None:
        """The name of the Event that has been created; None: there is no such Event, and the next repeat makes one."""
        memory = self._memories.get(uid)
        series = memory.series.get((_kind(write.event), write.event.note)) if memory else None
        if series:
            series.name = name

    def _memory(self, uid: str, now: datetime) -> _Memory:
        memory = self._memories.setdefault(uid, _Memory(now))
        self._memories.move_to_end(uid)
        while len(self._memories) > self._limit:
            self._memories.popitem(last=False)
        memory.tokens = min(BURST, memory.tokens + max(0.0, (now - memory.filled).total_seconds()) / REFILL_SECONDS)
        memory.filled = now
        oldest = now - timedelta(seconds=SERIES_SECONDS)
        memory.series = {key: series for key, series in memory.series.items() if series.last > oldest}
        return memory


def _combined(memory: _Memory, event: Event) -> Event:
    """The event itself while its note is known, or few others of its kind are; else the one that stands for the rest."""
    notes = [note for kind, note in memory.series if kind == _kind(event)]
    if event.note in notes or len(notes) < SIMILAR:
        return event
    rest = next((note for note in notes if note.startswith(COMBINED)), COMBINED + event.note)
    return replace(event, note=rest[:1024])


def _kind(event: Event) -> _Kind:
    return event.type, event.reason, event.action
