"""What a step takes on these processes: measured while the run goes on, for the operator's forecast of other numbers."""

from collections import deque
from statistics import median

from darkroom_api.step_times import StepTimes
from darkroom_trainer.clock import Clock, tenths
from darkroom_trainer.course import Course
from darkroom_trainer.data.sampler import Plan
from darkroom_trainer.parallel import Group
from darkroom_trainer.tempo import Tempo

_PARTS = ("compute", "dataWait", "communication")
_WINDOWS = 31
_BEFORE_STEPS = ("startup", "rendezvous", "compile", "restore")


class Meter:
    """Windows of a few steps each, by the buckets of the run's clock; what else happens between them is in no part.

    micro_batch: samples that are computed at once, if the user fixed it.
    """

    def __init__(self, clock: Clock, group: Group, plan: Plan, micro_batch: int | None) -> None:
        self._clock, self._group, self._plan, self._micro_batch = clock, group, plan, micro_batch
        self._windows: deque[tuple[float, ...]] = deque(maxlen=_WINDOWS)
        self._first = True
        self._before = self._parts()

    def add(self, steps: int) -> None:
        """So many steps have been done since the last window. The first holds allocations, kernel selection, cold caches."""
        parts = self._parts()
        if not self._first:
            window = zip(parts, self._before, strict=True)
            self._windows.append(tuple(max(0.0, now - before) / steps for now, before in window))
        self._before, self._first = parts, False

    def times(self, course: Course, tempo: Tempo, *, saving: float) -> StepTimes | None:
        """None while there are few windows, and where not all steps are alike. saving: seconds of one checkpoint."""
        steps = [sum(window) for window in self._windows]
        spread = tenths(steps)
        if spread is None or not course.uniform:
            return None
        low, high = spread
        usual = [median(part) for part in zip(*self._windows, strict=True)]
        scale = median(steps) / max(1e-9, sum(usual))  # a window's parts make up for each other: medians of each do not
        compute, data_wait, communication = (part * scale for part in usual)
        seconds = self._clock.seconds()
        return StepTimes(
            nodes=self._group.world // self._group.local_world,
            processes=self._group.world,
            batch=self._plan.batch,
            micro_batch=self._micro_batch,
            steps_per_epoch=_decimal(self._plan.steps_per_epoch),
            compute=_decimal(compute),
            data_wait=_decimal(data_wait),
            communication=_decimal(communication),
            all_reduce=_decimal(course.replica.all_reduce_seconds()),
            low=_decimal(low),
            high=_decimal(high),
            gradient_bytes=course.replica.gradient_bytes(),
            evaluation=_decimal(tempo.evaluation_seconds),
            saving=_decimal(saving),
            startup=_decimal(sum(seconds[bucket] for bucket in _BEFORE_STEPS)),
        )

    def _parts(self) -> list[float]:
        seconds = self._clock.seconds()
        return [seconds[part] for part in _PARTS]


def _decimal(seconds: float) -> str:
    return f"{min(seconds, 999_999_999.0):.6f}".rstrip("0").rstrip(".")
