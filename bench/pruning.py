"""What pruning saves, and what it costs, on a simulated clock: nothing, Katib's medianstop, Optuna's median pruner, and ours.

Final accuracies and training times are NAS-Bench-201's (bench/nasbench.py). The way there is made up: power laws whose speeds
differ from network to network, so that curves cross, with a noise of 0.6 points on each epoch. So every figure here rests on
synthetic curves. A trial takes one epoch's time to start, and 0.2 to leave after the decision.

equal_trials: the same random configurations for every rule. GPU time and makespan in percent of no pruning; regret in points of
accuracy below the best of these configurations. equal_budget: accuracy of the configuration that is chosen when the GPU time
of so many whole trainings is spent. Both: mean over the seeds, and its standard error.
"""

import heapq
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import optuna

from bench.nasbench import Table, table
from darkroom_api.v1alpha1.pruning import Pruning
from darkroom_operator.core.tuning_sweep import prune

EPOCHS, NOISE, START, LEAVE = 81, 0.6, 1.0, 0.2
TRIALS, WORKERS, SEEDS = 128, 16, 10
BUDGETS, BUDGET_WORKERS = (16, 64), 8
CHANCE = {"CIFAR-100": 1.0, "ImageNet16-120": 100 / 120}
Summary = dict[str, float]
optuna.logging.set_verbosity(optuna.logging.ERROR)


@dataclass
class Trial:
    """One training."""

    number: int
    key: str
    values: Sequence[float]
    """By epoch, from the first on."""
    epoch_seconds: float
    curve: dict[int, float] = field(default_factory=dict)
    done: bool = False
    """Ran to its end."""
    spent: float = 0.0
    """GPU time so far."""


Rule = Callable[[Trial, Sequence[Trial]], bool]
"""Whether a trial with a new value should leave, given all trials that have begun."""
Begin = Callable[[], Rule]
"""A rule for one search; it may remember."""


def run() -> dict[str, Any]:
    """Findings by image set."""
    return {name: _measure(name) for name in CHANCE}


def _measure(data_set: str) -> dict[str, Any]:
    trials = {rule: [_trials(data_set, rule, seed) for seed in range(SEEDS)] for rule in RULES}
    budget = {rule: {str(b): _budget(data_set, rule, b) for b in BUDGETS} for rule in RULES}
    return {
        "equal_trials": {rule: _relative(trials["none"], found) for rule, found in trials.items()},
        "equal_budget": budget,
    }


# --- The clock ---


def _search(trials: Iterator[Trial], rule: Rule, workers: int, budget: float) -> tuple[list[Trial], float]:
    """Run trials on so many workers until `budget` of GPU time is spent or none is left; all of them, and the time."""
    begun: list[Trial] = []
    reports: list[tuple[float, int, Trial, int]] = []
    order, now = count(), 0.0

    def start() -> None:
        trial = next(trials, None) if sum(t.spent for t in begun) < budget else None
        if trial is not None:
            begun.append(trial)
            trial.spent = START * trial.epoch_seconds
            heapq.heappush(reports, (now + (START + 1) * trial.epoch_seconds, next(order), trial, 1))

    for _ in range(workers):
        start()
    while reports:
        now, _, trial, epoch = heapq.heappop(reports)
        if epoch == 0:
            start()  # it has left
            continue
        trial.spent += trial.epoch_seconds
        trial.curve[epoch] = trial.values[epoch - 1]
        trial.done = epoch == EPOCHS
        if trial.done:
            start()
        elif rule(trial, begun):
            trial.spent += LEAVE * trial.epoch_seconds
            heapq.heappush(reports, (now + LEAVE * trial.epoch_seconds, next(order), trial, 0))
        elif sum(t.spent for t in begun) < budget:
            heapq.heappush(reports, (now + trial.epoch_seconds, next(order), trial, epoch + 1))
    return begun, now


def _draw(data_set: str, seed: int) -> Iterator[Trial]:
    """Random networks without end."""
    results, random = table(data_set), np.random.default_rng(seed)
    keys = sorted(results.accuracy)
    for number in count():
        key = keys[int(random.integers(len(keys)))]
        yield Trial(number, key, _values(results, key, CHANCE[data_set], random), results.seconds[key] / EPOCHS)


def _values(results: Table, key: str, chance: float, random: np.random.Generator) -> list[float]:
    """A power law from chance to the table's accuracy, and noise; the last value has none."""
    speed, epochs = random.uniform(0.3, 1.5), np.arange(1, EPOCHS + 1)
    left = (epochs**-speed - EPOCHS**-speed) / (1 - EPOCHS**-speed)
    final = results.accuracy[key]
    noise = random.normal(0, NOISE, EPOCHS) * (epochs < EPOCHS)
    return [float(value) for value in final - (final - chance) * left + noise]


# --- Equal trials ---


@dataclass(frozen=True)
class Outcome:
    """Of one search."""

    gpu_time: float
    makespan: float
    regret: float


def _trials(data_set: str, rule: str, seed: int) -> Outcome:
    source = _draw(data_set, seed)
    drawn = [next(source) for _ in range(TRIALS)]
    begun, makespan = _search(iter(drawn), RULES[rule](), WORKERS, float("inf"))
    accuracy = table(data_set).accuracy
    best = max(accuracy[trial.key] for trial in drawn)
    return Outcome(sum(t.spent for t in begun), makespan, best - accuracy[_chosen(begun).key])


def _chosen(trials: Sequence[Trial]) -> Trial:
    """The best of those that came farthest: values of different epochs do not compare."""
    return max(trials, key=lambda trial: (len(trial.curve), trial.curve[max(trial.curve)] if trial.curve else 0.0))


def _relative(whole: Sequence[Outcome], found: Sequence[Outcome]) -> dict[str, Summary]:
    return {
        "gpu_time_percent": _summary([100 * f.gpu_time / w.gpu_time for w, f in zip(whole, found, strict=True)]),
        "makespan_percent": _summary([100 * f.makespan / w.makespan for w, f in zip(whole, found, strict=True)]),
        "regret_points": _summary([f.regret for f in found]),
    }


def _summary(values: Sequence[float]) -> Summary:
    error = statistics.stdev(values) / len(values) ** 0.5
    return {"mean": round(statistics.mean(values), 2), "standard_error": round(error, 2), "n": len(values)}


# --- Equal budget ---


def _budget(data_set: str, rule: str, trainings: int) -> Summary:
    accuracy, seconds = table(data_set).accuracy, table(data_set).seconds
    budget = trainings * statistics.mean(seconds.values())
    found = []
    for seed in range(SEEDS):
        begun, _ = _search(_draw(data_set, seed), RULES[rule](), BUDGET_WORKERS, budget)
        found.append(accuracy[_chosen(begun).key])
    return _summary(found)


# --- Rules ---


def _never() -> Rule:
    return lambda _trial, _begun: False


def _ours(rules: dict[str, Any]) -> Rule:
    pruning = Pruning.model_validate(rules)

    def judge(trial: Trial, begun: Sequence[Trial]) -> bool:
        peers = [prune.Peer(t.number, t.curve, t.done) for t in begun if t is not trial]
        return prune.verdict(pruning, prune.Question(trial.number, trial.curve, peers, True, "bench")) is not None

    return judge


def _katib() -> Rule:
    """Katib's medianstop: a mean, of the first 4 values of at least 3 succeeded trials, fixed when the trial begins."""
    bars: dict[int, float | None] = {}

    def bar(begun: Sequence[Trial]) -> float | None:
        ended = [statistics.mean(trial.values[:4]) for trial in begun if trial.done]
        return statistics.mean(ended) if len(ended) >= 3 else None

    def judge(trial: Trial, begun: Sequence[Trial]) -> bool:
        for other in begun[len(bars) :]:
            bars[other.number] = bar(begun)
        limit, epoch = bars[trial.number], max(trial.curve)
        return limit is not None and epoch >= 4 and trial.curve[epoch] < limit

    return judge


def _optuna_median() -> Rule:
    """Optuna's own pruner on a study of its own."""
    study = optuna.create_study(
        direction="maximize", pruner=optuna.pruners.MedianPruner(), sampler=optuna.samplers.RandomSampler(seed=0)
    )
    asked: dict[int, optuna.Trial] = {}
    told: set[int] = set()

    def judge(trial: Trial, begun: Sequence[Trial]) -> bool:
        for other in begun[len(asked) :]:
            asked[other.number] = study.ask()
        for other in begun:
            if other.done and other.number not in told:
                study.tell(asked[other.number], other.curve[EPOCHS])
                told.add(other.number)
        mine, epoch = asked[trial.number], max(trial.curve)
        mine.report(trial.curve[epoch], epoch)
        if not mine.should_prune():
            return False
        told.add(trial.number)
        study.tell(mine, state=optuna.trial.TrialState.PRUNED)
        return True

    return judge


RULES: dict[str, Begin] = {
    "none": _never,
    "katib_medianstop": _katib,
    "optuna_median": _optuna_median,
    "darkroom_median": partial(_ours, {"median": {}}),
    "darkroom_asha_from_1": partial(_ours, {"asha": {"minEpochs": 1}}),
    "darkroom_asha_from_3": partial(_ours, {"asha": {"minEpochs": 3}}),
    "darkroom_hyperband": partial(_ours, {"hyperband": {"maxEpochs": EPOCHS}}),
}
