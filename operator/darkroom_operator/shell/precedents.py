"""What finished and running jobs have measured, by what their work is: a new job's forecast before its first step."""

from collections import OrderedDict

from darkroom_operator.core.training_job.forecast import measured_by, work_of
from darkroom_operator.core.types import Body, Precedent

_KEPT = 2000


class Precedents:
    """The newest measurement of each work, kept when its job is deleted."""

    def __init__(self) -> None:
        self._newest: OrderedDict[str, Precedent] = OrderedDict()

    def note(self, body: Body) -> None:
        """A job as it is now."""
        measured = measured_by(body)
        if measured is None:
            return
        self._newest[measured.work] = measured.precedent
        self._newest.move_to_end(measured.work)
        while len(self._newest) > _KEPT:
            self._newest.popitem(last=False)

    def of(self, body: Body) -> Precedent | None:
        """For a job that has no forecast yet."""
        if not self._newest or "forecast" in (body.get("status") or {}):
            return None
        return self._newest.get(work_of(body))
