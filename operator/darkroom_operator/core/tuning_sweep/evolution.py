"""CMA-ES by replay: the optimizer is told again, generation by generation, what came of each, and then asked.

Optuna's own sampler keeps its optimizer as a pickle among the trials; whoever may edit those could have code run here.
"""

from collections.abc import Sequence
from itertools import count

import numpy as np

from darkroom_api.v1alpha1.budget import Direction
from darkroom_api.v1alpha1.search_space import Parameter
from darkroom_api.v1alpha1.tuning_sweep import TuningSweepSpec
from darkroom_api.v1alpha1.tuning_sweep_status import TrialRecord
from darkroom_operator.core.tuning_sweep import space

SIGMA = 1 / 6
"""First step, in widths of the ranges: as Optuna's."""


def ask(spec: TuningSweepSpec, seed: int, records: Sequence[TrialRecord]) -> tuple[dict[str, str], int]:
    """The next parameters and the generation that they belong to."""
    parameters = sorted(spec.parameters, key=lambda parameter: parameter.name)
    usable = [r for r in sorted(records, key=lambda r: r.number) if _is_usable(spec, r)]
    worst_first = -1.0 if spec.objectives[0].direction == Direction.MAXIMIZE else 1.0
    from cmaes import CMA  # with SciPy it is 65 MiB, which an operator without such sweeps does not need

    optimizer = CMA(
        mean=_start(parameters, usable, worst_first),
        sigma=SIGMA,
        bounds=np.array([[0.0, 1.0]] * len(parameters)),
        seed=seed,
    )
    for generation in count():
        told = [_solution(parameters, record, worst_first) for record in usable if record.generation == generation]
        if len(told) < optimizer.population_size:
            break
        optimizer.tell(told[: optimizer.population_size])
    place = optimizer.ask()
    return {p.name: space.from_unit(p, float(x)) for p, x in zip(parameters, place, strict=True)}, generation


def _is_usable(spec: TuningSweepSpec, record: TrialRecord) -> bool:
    return (
        record.result == "Succeeded" and bool(record.values) and space.is_complete(spec.parameters, record.parameters)
    )


def _start(parameters: Sequence[Parameter], usable: Sequence[TrialRecord], sign: float) -> np.ndarray:
    """The best that was found by other means (Auto's first trials, a warm start), else the middle."""
    others = [_solution(parameters, record, sign) for record in usable if record.generation is None]
    if not others:
        return np.full(len(parameters), 0.5)
    return min(others, key=lambda solution: solution[1])[0]


def _solution(parameters: Sequence[Parameter], record: TrialRecord, sign: float) -> tuple[np.ndarray, float]:
    places = np.array([space.to_unit(parameter, record.parameters[parameter.name]) for parameter in parameters])
    return places, sign * float((record.values or ["nan"])[0])
