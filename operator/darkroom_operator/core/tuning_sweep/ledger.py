"""The record of a long search: rows that its status has no room for, in pages, each an immutable ConfigMap that the sweep owns.

A page is made of rows that the status has stored, and a row leaves the status only when the page that has it was seen. So
wherever the operator dies, each row is in one of the two.
"""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from darkroom_api.v1alpha1.tuning_sweep_status import LedgerPage, TrialRecord
from darkroom_operator.core.ownership import sweep_child_metadata
from darkroom_operator.core.types import Body

KEPT_ROWS, KEPT_BYTES = 1000, 256 * 1024
"""What the status may hold before its oldest rows go into a page; each row that is added sends them all."""
PAGE_ROWS, PAGE_BYTES = 500, 128 * 1024
KEY = "rows"


@dataclass(frozen=True, eq=False)
class Page:
    """A ConfigMap with rows. Compared by identity: it never changes, so whatever is computed from it may be kept with it."""

    name: str
    owner: str
    """UID of the sweep."""
    rows: tuple[TrialRecord, ...]
    text: str

    @property
    def entry(self) -> LedgerPage:
        """As the sweep's status lists it."""
        digest = hashlib.sha256(self.text.encode()).hexdigest()
        return LedgerPage(name=self.name, first=self.rows[0].number, rows=len(self.rows), sha256=digest)


def page_name(sweep: str, first: int) -> str:
    """By the number of its first trial: a second try to make it meets the first."""
    return f"{sweep}-ledger-{first:05d}"


def read_page(body: Body) -> Page | None:
    """A ConfigMap; None if it holds no rows."""
    meta = body["metadata"]
    text = (body.get("data") or {}).get(KEY, "")
    try:
        rows = tuple(TrialRecord.model_validate_json(line, extra="ignore") for line in text.splitlines())
    except ValidationError:
        return None
    owners = [owner["uid"] for owner in meta.get("ownerReferences", [])]
    return Page(meta["name"], owners[0] if owners else "", rows, text) if rows else None


def page(sweep: str, namespace: str, uid: str, rows: Sequence[TrialRecord]) -> dict[str, Any]:
    """The ConfigMap of these rows."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": sweep_child_metadata(sweep, uid, namespace=namespace, name=page_name(sweep, rows[0].number)),
        "immutable": True,
        "data": {KEY: "\n".join(map(_line, rows))},
    }


def _line(row: TrialRecord) -> str:
    return json.dumps(row.to_wire(), separators=(",", ":"))


def usable(pages: Sequence[Page], uid: str) -> tuple[Page, ...]:
    """The sweep's own, as far as they follow on each other from trial 0."""
    found: list[Page] = []
    for candidate in sorted(pages, key=lambda p: p.rows[0].number):
        following = found[-1].rows[-1].number + 1 if found else 0
        numbers = [row.number for row in candidate.rows]
        if candidate.owner == uid and numbers == list(range(following, following + len(numbers))):
            found.append(candidate)
    return tuple(found)


def lost(listed: Sequence[LedgerPage], pages: Sequence[Page]) -> LedgerPage | None:
    """The first page of the status that is not there as it was."""
    present = {page.name: page.entry for page in pages}
    return next((entry for entry in listed if present.get(entry.name) != entry), None)


def due(stored: Sequence[TrialRecord], wanted: Sequence[TrialRecord], unfinished: Collection[int]) -> list[TrialRecord]:
    """Rows for a new page: the oldest of the stored ones, once those are too many, and as far as they are final."""
    sizes = [len(_line(row)) + 1 for row in stored]
    if len(stored) <= KEPT_ROWS and sum(sizes) <= KEPT_BYTES:
        return []
    rows: list[TrialRecord] = []
    total = 0
    for row, new, size in zip(stored, wanted, sizes, strict=False):
        total += size
        if row != new or row.number in unfinished or len(rows) >= PAGE_ROWS or (rows and total > PAGE_BYTES):
            break
        if rows and row.number != rows[-1].number + 1:
            break
        rows.append(row)
    return rows
