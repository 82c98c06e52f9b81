"""Whether a trial goes on: pure functions of recorded values, equal to the pruners of Optuna 5 of the same names.

A trial is judged by its newest value alone, when that is the first at or after a rung. A rung that was passed is not judged
again, and nothing is remembered but the values.
"""

import binascii
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, pairwise

import numpy as np

from darkroom_api.v1alpha1.budget import Direction
from darkroom_api.v1alpha1.pruning import Asha, AshaMode, Hyperband, Median, Patience, Percentile, Pruning, Threshold
from darkroom_operator.core.tuning_sweep.curves import Curve

MOST_KEPT = 40
"""Epochs of a trial that its record keeps."""


@dataclass(frozen=True)
class Peer:
    """A trial as another's decision sees it."""

    number: int
    curve: Curve
    succeeded: bool = False
    """Ran to its end."""


@dataclass(frozen=True)
class Question:
    """A trial to be judged: its values so far, and all other trials."""

    number: int
    curve: Curve
    peers: Sequence[Peer]
    maximize: bool
    seed: str
    """The sweep's own text: a trial's bracket follows from it and the number."""

    @property
    def epoch(self) -> int:
        """Of the newest value."""
        return max(self.curve)

    @property
    def value(self) -> float:
        """The newest."""
        return self.curve[self.epoch]


def is_maximized(direction: str) -> bool:
    """Whether larger is better."""
    return direction == Direction.MAXIMIZE


def verdict(pruning: Pruning, question: Question) -> str | None:
    """Why the trial should end now, or None: it goes on."""
    if not question.curve:
        return None
    if pruning.asha:
        unit = " s" if in_seconds(pruning) else ""
        return _halving(pruning.asha, question, unit)
    if pruning.hyperband:
        return _halving(pruning.hyperband, question)
    if pruning.median:
        return _percentile(pruning.median, 50, question)
    if pruning.percentile:
        return _percentile(pruning.percentile, pruning.percentile.percentile, question)
    if pruning.threshold:
        return _threshold(pruning.threshold, question)
    return _patience(pruning.patience, question) if pruning.patience else None


# --- Successive halving ---


def in_seconds(pruning: Pruning | None) -> bool:
    """Whether curves are by seconds of training, not by epochs."""
    return pruning is not None and pruning.asha is not None and pruning.asha.min_seconds is not None


def first_rung(settings: Asha | Hyperband) -> int:
    """Epochs, or seconds, before the first decision."""
    by_time = settings.min_seconds if isinstance(settings, Asha) else None
    return settings.min_epochs if by_time is None else by_time


def _asha(first: int, factor: int, question: Question, unit: str = "") -> str | None:
    for rung in rungs(first, factor):
        if question.epoch < rung:
            return None
        if _first_at(question.curve, rung) != question.epoch:
            continue  # passed before
        if math.isnan(question.value):
            return f"rung {rung}{unit}: the objective is not a number"
        others = [peer.curve[at] for peer in question.peers if (at := _first_at(peer.curve, rung)) is not None]
        competing = sorted([*others, question.value], reverse=question.maximize)
        cutoff = competing[max(len(competing) // factor, 1) - 1]
        if (question.value < cutoff) if question.maximize else (question.value > cutoff):
            rank = competing.index(question.value) + 1
            return (
                f"rung {rung}{unit}: {question.value:.6g} is number {rank} of {len(competing)}; one of {factor} goes on"
            )
    return None


def rungs(first: int, factor: int) -> Iterator[int]:
    """Epochs at which trials are compared."""
    return (first * factor**rung for rung in count())


def _first_at(curve: Curve, rung: int) -> int | None:
    """The first epoch at or after the rung."""
    return min((epoch for epoch in curve if epoch >= rung), default=None)


def _halving(settings: Asha | Hyperband, question: Question, unit: str = "") -> str | None:
    if brackets(settings) == 1:
        return _asha(first_rung(settings), settings.reduction_factor, question, unit)
    bracket = bracket_of(settings, question.seed, question.number)
    peers = [peer for peer in question.peers if bracket_of(settings, question.seed, peer.number) == bracket]
    within = Question(question.number, question.curve, peers, question.maximize, question.seed)
    why = _asha(settings.min_epochs * settings.reduction_factor**bracket, settings.reduction_factor, within)
    return f"bracket {bracket}, {why}" if why else None


def _fitting(settings: Asha | Hyperband) -> int:
    """Brackets whose first rung is within a whole training."""
    if settings.max_epochs is None:
        return 1
    return math.floor(math.log(settings.max_epochs / settings.min_epochs, settings.reduction_factor)) + 1


def brackets(settings: Asha | Hyperband) -> int:
    """Brackets in use, the most eager ones first: by ASHA's mode one, half, or all of those that fit."""
    fitting = _fitting(settings)
    if isinstance(settings, Hyperband) or settings.mode == AshaMode.CONSERVATIVE:
        return fitting
    return 1 if settings.mode == AshaMode.AGGRESSIVE else math.ceil(fitting / 2)


def bracket_of(settings: Asha | Hyperband, seed: str, number: int) -> int:
    """A trial's bracket, by a checksum of its number: more trials for the more eager brackets."""
    factor, fitting = settings.reduction_factor, _fitting(settings)
    shares = [math.ceil(fitting * factor ** (fitting - 1 - b) / (fitting - b)) for b in range(brackets(settings))]
    place = binascii.crc32(f"{seed}_{number}".encode()) % sum(shares)
    for bracket, share in enumerate(shares):
        place -= share
        if place < 0:
            return bracket
    raise AssertionError("the place is within the sum of all shares")


# --- Against those that ran to their end ---


def _percentile(settings: Median | Percentile, percentile: int, question: Question) -> str | None:
    finished = [peer for peer in question.peers if peer.succeeded]
    if len(finished) < settings.startup_trials or not _is_due(settings, question.curve):
        return None
    values = np.array(list(question.curve.values()), dtype=float)
    if np.isnan(values).all():
        return f"epoch {question.epoch}: the objective is not a number"
    best = float(np.nanmax(values) if question.maximize else np.nanmin(values))
    theirs = [peer.curve[question.epoch] for peer in finished if question.epoch in peer.curve]
    if not theirs or np.isnan(theirs).all():
        return None
    cutoff = float(np.nanpercentile(theirs, 100 - percentile if question.maximize else percentile))
    if not ((best < cutoff) if question.maximize else (best > cutoff)):
        return None
    return f"epoch {question.epoch}: the best so far, {best:.6g}, is worse than the cut-off of {len(theirs)} trials, {cutoff:.6g}"


def _is_due(settings: Median | Percentile | Threshold, curve: Curve) -> bool:
    """The newest value is the first of its interval."""
    epoch, warmup, interval = max(curve), settings.warmup_epochs, settings.interval_epochs
    if epoch < warmup:
        return False
    begin = (epoch - warmup) // interval * interval + warmup
    return max((other for other in curve if other != epoch), default=-1) < begin


# --- By itself ---


def _threshold(settings: Threshold, question: Question) -> str | None:
    if not _is_due(settings, question.curve):
        return None
    value = question.value
    if math.isnan(value):
        return f"epoch {question.epoch}: the objective is not a number"
    if settings.lower is not None and value < float(settings.lower):
        return f"epoch {question.epoch}: {value:.6g} is less than {settings.lower}"
    if settings.upper is not None and value > float(settings.upper):
        return f"epoch {question.epoch}: {value:.6g} is more than {settings.upper}"
    return None


def _patience(settings: Patience, question: Question) -> str | None:
    values = np.array([question.curve[epoch] for epoch in sorted(question.curve)], dtype=float)
    if not question.maximize:
        values = -values
    before, after = values[: -settings.epochs - 1], values[-settings.epochs - 1 :]
    if not len(before) or np.isnan(before).all() or np.isnan(after).all():
        return None
    if float(np.nanmax(before)) - float(settings.min_delta) > float(np.nanmax(after)):
        return f"epoch {question.epoch}: no better value for {settings.epochs} epochs"
    return None


# --- What a record must keep ---


def kept_epochs(pruning: Pruning | None, curve: Mapping[int, float], *, last: bool) -> list[int]:
    """Epochs of an ended trial that other trials' decisions look at; with `last`, the newest besides, for the sampler."""
    kept: set[int] = set()
    halving: Asha | Hyperband | None = pruning.asha or pruning.hyperband if pruning else None
    comparing: Median | Percentile | None = pruning.median or pruning.percentile if pruning else None
    if curve and halving:
        for rung in rungs(first_rung(halving), halving.reduction_factor):
            if rung > max(curve):
                break
            if (at := _first_at(curve, rung)) is not None:
                kept.add(at)
    if curve and comparing:
        epochs = sorted(curve)
        steps = [e for before, e in pairwise([-1, *epochs]) if _opens(comparing, before, e)]
        kept.update(steps[:MOST_KEPT])
    if curve and last:
        kept.add(max(curve))
    return sorted(kept)


def _opens(settings: Median | Percentile, before: int, epoch: int) -> bool:
    return epoch >= settings.warmup_epochs and _is_due(
        settings, {before: 0.0, epoch: 0.0} if before >= 0 else {epoch: 0.0}
    )
