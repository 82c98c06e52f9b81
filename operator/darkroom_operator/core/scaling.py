"""How long a training takes on another number of nodes, from steps that were measured on one.

The form is AdaptDL's (Qiao et al., "Pollux", OSDI 2021): a step is the p-norm of compute and network, whose p between 1
(nothing overlaps) and 10 (all does) says how much of the exchange hides behind the backward pass. Compute has a part that
does not shrink with a process's share of the batch, and one that is proportional to it. The network's part is that of a
ring: each of w processes sends 2 (w - 1) / w of its gradients in 2 (w - 1) hops.

Pollux fits its parameters to several configurations. One run has seen one, so what it cannot tell is a range here, and
the forecast is one as well: from the best to the worst of each.
"""

import math
from dataclasses import dataclass
from typing import Self

from darkroom_api.step_times import StepTimes


@dataclass(frozen=True)
class Range:
    """The fastest that is plausible, the likely, and the slowest; seconds, unless it says otherwise."""

    low: float
    likely: float
    high: float

    @classmethod
    def around(cls, likely: float, *others: float) -> Self:
        """The likely value, and what else it may be."""
        return cls(min(likely, *others), likely, max(likely, *others))

    def __add__(self, other: "Range") -> "Range":
        """All goes well in both, or in neither."""
        return Range(self.low + other.low, self.likely + other.likely, self.high + other.high)

    def __mul__(self, factor: float) -> "Range":
        return Range(self.low * factor, self.likely * factor, self.high * factor)


FIXED = Range(0.0, 0.1, 0.3)
"""Part of the measured compute that another share of the batch would not change: launching kernels, the optimizer."""
LINK = Range(12.5e9, 1.25e9, 125e6)
"""Bytes per second of a network that nobody has measured yet: 100, 10 and 1 Gbit/s."""
HOP = Range(5e-6, 50e-6, 1e-3)
"""Seconds for one message there."""
MARGIN = 0.1
"""By which two runs of the same may differ."""
OVERLAP = Range(10.0, 2.0, 1.0)
"""p where nobody has measured it."""


def duration_at(measured: StepTimes, *, nodes: int, epochs: int, save_every: float) -> Range:
    """The whole training on so many nodes, with as many processes on each. save_every: seconds between two savings."""
    steps = float(measured.steps_per_epoch) * epochs
    steps_and_evaluations = step_at(measured, nodes) * steps + evaluation_at(measured, nodes) * epochs
    rest = (1 + steps_and_evaluations.likely / save_every) * float(measured.saving) + float(measured.startup)
    return steps_and_evaluations + Range(rest, rest, rest)


def step_at(measured: StepTimes, nodes: int) -> Range:
    """One step on so many nodes."""
    seen = _seen(measured)
    if nodes == measured.nodes:
        return Range.around(seen, float(measured.low), float(measured.high))
    compute, network, overlap = _compute(measured, nodes), _network(measured, nodes), _overlap(measured, nodes)
    wait = float(measured.data_wait)
    waits = Range.around(wait * _shrink(measured, nodes), wait)
    parts = zip(_values(compute), _values(network), _values(overlap), _values(waits), strict=True)
    low, likely, high = (_norm(c, n, p) + w for c, n, p, w in parts)
    slowest, fastest = max(1.0, float(measured.high) / seen), min(1.0, float(measured.low) / seen)
    return Range(low * fastest * (1 - MARGIN), likely, high * slowest * (1 + MARGIN))


def evaluation_at(measured: StepTimes, nodes: int) -> Range:
    """One evaluation: each process measures its share, the remainder is small."""
    ratio = measured.nodes / nodes
    return Range.around(*(float(measured.evaluation) * (f + (1 - f) * ratio) for f in _likely_first(FIXED)))


def can_use(measured: StepTimes, nodes: int) -> bool:
    """Whether every process on so many nodes would have a part of each step."""
    return _processes(measured, nodes) <= math.ceil(measured.batch / (measured.micro_batch or 1))


def _seen(measured: StepTimes) -> float:
    return max(1e-6, float(measured.compute) + float(measured.communication) + float(measured.data_wait))


def _processes(measured: StepTimes, nodes: int) -> int:
    return max(1, round(measured.processes * nodes / measured.nodes))


def _shrink(measured: StepTimes, nodes: int) -> float:
    """The largest share of a step that a process has, over the one when it was measured."""

    def largest(processes: int) -> int:
        micro_batch = measured.micro_batch or math.ceil(measured.batch / processes)
        return min(measured.batch, math.ceil(math.ceil(measured.batch / micro_batch) / processes) * micro_batch)

    return largest(_processes(measured, nodes)) / largest(measured.processes)


def _compute(measured: StepTimes, nodes: int) -> Range:
    ratio, seconds = _shrink(measured, nodes), float(measured.compute)
    return Range.around(*(seconds * (fixed + (1 - fixed) * ratio) for fixed in _likely_first(FIXED)))


def _network(measured: StepTimes, nodes: int) -> Range:
    """The exchange of gradients, hidden or not."""
    processes = _processes(measured, nodes)
    if processes == 1:
        return Range(0.0, 0.0, 0.0)
    if not _knows_network(measured, nodes):
        hops, sent = 2 * (processes - 1), 2 * (processes - 1) / processes * measured.gradient_bytes
        return Range(*(hops * hop + sent / link for hop, link in zip(_values(HOP), _values(LINK), strict=True)))
    before, after = ((n - 1) / n for n in (measured.processes, processes))
    whole = float(measured.all_reduce) * after / before  # as much as the links carry
    return Range.around(whole, float(measured.all_reduce) * processes / measured.processes)  # as many as the hops are


def _knows_network(measured: StepTimes, nodes: int) -> bool:
    """Between the processes of one node it is another than between nodes."""
    return measured.processes > 1 and (measured.nodes > 1) == (nodes > 1)


def _overlap(measured: StepTimes, nodes: int) -> Range:
    if not _knows_network(measured, nodes):
        return OVERLAP
    compute, network = float(measured.compute), float(measured.all_reduce)
    return Range(OVERLAP.low, fitted_overlap(compute, network, compute + float(measured.communication)), OVERLAP.high)


def fitted_overlap(compute: float, network: float, step: float) -> float:
    """The p between 1 and 10 whose norm of compute and network comes nearest to the step."""
    low, high = OVERLAP.high, OVERLAP.low
    for _ in range(30):  # the norm falls as p grows
        middle = (low + high) / 2
        low, high = (middle, high) if _norm(compute, network, middle) > step else (low, middle)
    return (low + high) / 2


def _norm(compute: float, network: float, p: float) -> float:
    longer = max(compute, network)
    return longer * ((compute / longer) ** p + (network / longer) ** p) ** (1 / p) if longer > 0 else 0.0


def _values(found: Range) -> tuple[float, float, float]:
    return found.low, found.likely, found.high


def _likely_first(found: Range) -> tuple[float, float, float]:
    return found.likely, found.low, found.high
