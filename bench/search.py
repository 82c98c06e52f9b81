"""What a search finds: NAS-Bench-201, 60 trials, 8 in flight, 25 seeds, through the plan of a TuningSweep and by Optuna itself.

A trial takes as long as the table says its training took, on a simulated clock, so trials end out of order. Ours is the plan that
the operator runs, with the writes that it asks for carried out between two looks; Optuna's is ask and tell on one study. Figures
are the best validation accuracy found, in percent: mean over the seeds, and its standard error.
"""

import heapq
import statistics
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any

import optuna

from bench.nasbench import DATA_SETS, PARAMETERS, SPACE, Table, key_of, table
from tests.core.sweep_world import SweepWorld

TRIALS, IN_FLIGHT, SEEDS = 60, 8, 25
Search = Callable[[Table, int], float]


def run() -> dict[str, Any]:
    """Findings by image set and searcher."""
    return {name: _measure(table(name)) for name in DATA_SETS}


def _measure(results: Table) -> dict[str, Any]:
    searchers: dict[str, Search] = {
        "random": lambda rows, seed: sweep("Random", rows, seed),
        "optuna_tpe": optuna_tpe,
        "darkroom_tpe": lambda rows, seed: sweep("TPE", rows, seed),
        "darkroom_auto": lambda rows, seed: sweep("Auto", rows, seed),
    }
    found = {name: [search(results, seed) for seed in range(SEEDS)] for name, search in searchers.items()}
    return {
        "best_of_all_networks": round(results.best, 2),
        **{name: _summary(values) for name, values in found.items()},
        "darkroom_auto_minus_optuna_tpe": _summary(_differences(found, "darkroom_auto", "optuna_tpe")),
    }


def _differences(found: Mapping[str, list[float]], one: str, other: str) -> list[float]:
    return [a - b for a, b in zip(found[one], found[other], strict=True)]


def _summary(values: list[float]) -> dict[str, float]:
    error = statistics.stdev(values) / len(values) ** 0.5
    return {"mean": round(statistics.mean(values), 2), "standard_error": round(error, 2), "n": len(values)}


def sweep(algorithm: str, results: Table, seed: int) -> float:
    """The best accuracy that a TuningSweep finds."""
    world = SweepWorld(
        lambda chosen: results.accuracy[key_of(chosen)],
        parameters=PARAMETERS,
        algorithm={"name": algorithm, "seed": seed},
        stopping={"maxTrials": TRIALS},
        parallelism=IN_FLIGHT,
    )
    clock = _Clock()
    world.look()
    for name in _ends(clock, lambda: list(world.jobs), lambda name: results.seconds[key_of(world.parameters(name))]):
        world.complete(name)
        world.look()
    assert world.status["trials"]["succeeded"] == TRIALS, world.status
    return float(world.status["best"]["value"])


def optuna_tpe(results: Table, seed: int) -> float:
    """The best accuracy that Optuna's default sampler finds, asked and told directly."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    asked: dict[int, optuna.Trial] = {}

    def ask() -> None:
        trial = study.ask()
        for name, values in SPACE.items():
            trial.suggest_categorical(name, values)
        asked[trial.number] = trial

    for _ in range(IN_FLIGHT):
        ask()
    clock = _Clock()
    for number in _ends(clock, lambda: list(asked), lambda number: results.seconds[key_of(asked[number].params)]):
        study.tell(asked[number], results.accuracy[key_of(asked[number].params)])
        if len(asked) < TRIALS:
            ask()
    return study.best_value


class _Clock:
    """Trials under way, by the time of their end."""

    def __init__(self) -> None:
        self.now = 0.0
        self._ends: list[tuple[float, int, Any]] = []
        self._order = count()

    def start(self, trial: Any, seconds: float) -> None:
        heapq.heappush(self._ends, (self.now + seconds, next(self._order), trial))

    def next_end(self) -> Any:
        """The trial that ends next; None if none is under way."""
        if not self._ends:
            return None
        self.now, _, trial = heapq.heappop(self._ends)
        return trial


def _ends(clock: _Clock, trials: Callable[[], list[Any]], seconds: Callable[[Any], float]) -> Iterator[Any]:
    """Each trial as it ends; those that are new after that are started."""
    started = 0
    while True:
        for trial in trials()[started:]:
            clock.start(trial, seconds(trial))
            started += 1
        trial = clock.next_end()
        if trial is None:
            return
        yield trial
