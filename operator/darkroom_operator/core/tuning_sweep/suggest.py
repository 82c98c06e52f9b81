"""The next parameters: a pure function of the spec, the history and the trial's number.

A study of Optuna is made anew for each question, with a sampler whose seed follows from the sweep and the number. So the same
history gives the same answer, before and after a restart, and nothing of a sampler is ever stored. The one thing that
CMA-ES and NSGA-II know beyond the history is to which generation a trial belongs; it is part of the trial's record.

This module and `study`, which shows what was tried, are the only ones that import Optuna.
"""

import copy
import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from darkroom_api.v1alpha1.search_space import Parameter, Scale
from darkroom_api.v1alpha1.tuning_sweep import Algorithm, AlgorithmName, Constraint, TuningSweepSpec
from darkroom_api.v1alpha1.tuning_sweep_status import TrialRecord
from darkroom_operator.core.tuning_sweep import evolution, space
from darkroom_operator.core.tuning_sweep.curves import parse_curve
from darkroom_operator.core.tuning_sweep.ledger import Page
from darkroom_operator.core.tuning_sweep.prune import is_maximized

optuna.logging.set_verbosity(optuna.logging.ERROR)

FINITE = 10_000
"""Spaces of up to this many combinations are searched without trying one twice."""
REDRAWS = 8
AUTO_SWITCHES_AT = 250
"""Completed trials from which on Auto leaves TPE, where it may."""
GENERATION_KEY = "NSGAIISampler:generation"
NSGA_POPULATION = 20


@dataclass(frozen=True)
class Pending:
    """A trial that is under way."""

    number: int
    parameters: space.Configuration
    generation: int | None = None


@dataclass(frozen=True)
class Suggestion:
    """What a trial should try."""

    parameters: dict[str, str]
    generation: int | None = None


def suggest(
    spec: TuningSweepSpec,
    seed: str,
    number: int,
    records: Sequence[TrialRecord],
    pending: Sequence[Pending],
    pages: Sequence[Page] = (),
) -> Suggestion | None:
    """For trial `number`; None if every combination was tried. `seed`: any text that is the sweep's own.

    `pages` have the records of the first trials, `records` the others.
    """
    if space.size(spec.parameters, FINITE) is None and spec.algorithm.name != AlgorithmName.GRID:
        return _ask(spec, _seed(f"{seed}/{number}/0"), number, records, pending, pages)
    seen = {_identity(r.parameters) for r in _all(pages, records)} | {_identity(t.parameters) for t in pending}
    for draw in range(0 if spec.algorithm.name == AlgorithmName.GRID else REDRAWS):
        suggestion = _ask(spec, _seed(f"{seed}/{number}/{draw}"), number, records, pending, pages)
        if _identity(suggestion.parameters) not in seen:
            return suggestion
    return _untried(spec.parameters, seen)


def _all(pages: Sequence[Page], records: Sequence[TrialRecord]) -> list[TrialRecord]:
    return [*(row for page in pages for row in page.rows), *records]


def _untried(parameters: Sequence[Parameter], seen: set[tuple[tuple[str, str], ...]]) -> Suggestion | None:
    found = (c for c in space.combinations(parameters) if _identity(c) not in seen)
    untried = next(found, None)
    return Suggestion(untried) if untried is not None else None


def _identity(chosen: space.Configuration) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(chosen.items()))


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def algorithm_now(spec: TuningSweepSpec, records: Sequence[TrialRecord]) -> AlgorithmName:
    """What Auto stands for: Optuna's AutoSampler without its Gaussian processes, which need torch."""
    name = AlgorithmName(spec.algorithm.name)
    if name != AlgorithmName.AUTO:
        return name
    if sum(record.result == "Succeeded" for record in records) < AUTO_SWITCHES_AT:
        return AlgorithmName.TPE
    if any(parameter.choice or parameter.when for parameter in spec.parameters) or len(spec.parameters) < 2:
        return AlgorithmName.TPE
    if len(spec.objectives) > 1:
        return AlgorithmName.NSGAII
    return AlgorithmName.TPE if spec.constraints else AlgorithmName.CMAES


def _ask(
    spec: TuningSweepSpec,
    seed: int,
    number: int,
    recent: Sequence[TrialRecord],
    pending: Sequence[Pending],
    pages: Sequence[Page],
) -> Suggestion:
    records = _all(pages, recent)
    given = spec.warm_start.configurations if spec.warm_start else []
    fixed = given[number] if number < len(given) else {}
    algorithm = algorithm_now(spec, records)
    if algorithm == AlgorithmName.CMAES and not fixed:
        return Suggestion(*evolution.ask(spec, seed, records))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of experimental and deprecated parts, which the version pin holds still
        study = optuna.create_study(directions=directions(spec), sampler=_sampler(spec.algorithm, algorithm, seed))
        for past in _history(spec, number, recent, pending, pages):
            study.add_trial(past)
        if fixed:
            study.enqueue_trial({name: _external(_named(spec, name), text) for name, text in fixed.items()})
        trial = study.ask()
        chosen: dict[str, str] = {}
        for parameter in space.active(spec.parameters, chosen):
            chosen[parameter.name] = _text(parameter, _draw(trial, parameter))
    generation = study.get_trials(deepcopy=False)[-1].system_attrs.get(GENERATION_KEY)
    return Suggestion(chosen, generation)


def importances(
    spec: TuningSweepSpec, records: Sequence[TrialRecord], pages: Sequence[Page] = ()
) -> dict[str, str] | None:
    """Each parameter's share in what made the better trials good; None where there is no saying."""
    if len(spec.objectives) > 1:
        return None
    known = _all(pages, records)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(directions=directions(spec))
        for past in _history(spec, max((record.number for record in known), default=-1) + 1, records, (), pages):
            study.add_trial(past)
        found = shares(study)
    return {name: f"{share:.4f}" for name, share in found.items()} or None


def shares(study: optuna.Study) -> dict[str, float]:
    """Of each parameter in the differences of the first objective (PED-ANOVA); empty where there is no saying: no parameter
    that all trials have, or values that do not differ."""
    target = None if len(study.directions) == 1 else lambda trial: float(trial.values[0])
    try:
        return dict(optuna.importance.get_param_importances(study, target=target))
    except (ValueError, RuntimeError):
        return {}


def directions(spec: TuningSweepSpec) -> list[StudyDirection]:
    """Of the objectives, as a study has them."""
    return [
        StudyDirection.MAXIMIZE if is_maximized(objective.direction) else StudyDirection.MINIMIZE
        for objective in spec.objectives
    ]


def _draw(trial: optuna.Trial, parameter: Parameter) -> float | int | str:
    match distribution(parameter):
        case FloatDistribution() as real:
            return trial.suggest_float(parameter.name, real.low, real.high, step=real.step, log=real.log)
        case IntDistribution() as whole:
            return trial.suggest_int(parameter.name, whole.low, whole.high, step=whole.step, log=whole.log)
        case CategoricalDistribution() as some:
            return str(trial.suggest_categorical(parameter.name, some.choices))
        case other:
            raise TypeError(f"{parameter.name}: {other}")


def _sampler(algorithm: Algorithm, name: AlgorithmName, seed: int) -> optuna.samplers.BaseSampler:
    match name:
        case AlgorithmName.NSGAII:
            return optuna.samplers.NSGAIISampler(population_size=NSGA_POPULATION, seed=seed)
        case AlgorithmName.TPE:
            return optuna.samplers.TPESampler(n_startup_trials=algorithm.startup_trials, seed=seed)
        case _:
            return optuna.samplers.RandomSampler(seed=seed)


def _named(spec: TuningSweepSpec, name: str) -> Parameter:
    return next(parameter for parameter in spec.parameters if parameter.name == name)


# --- The history as Optuna has it ---


class Recorded(FrozenTrial):
    """A trial that a study takes in as it is: copying 10,000 of them in depth takes seconds, and nothing here changes one."""

    def __deepcopy__(self, memo: object) -> "Recorded":
        return copy.copy(self)


_PAGES: WeakKeyDictionary[Page, list[FrozenTrial]] = WeakKeyDictionary()
"""Trials of pages that were looked at before: the same page gives the same trials, for as long as it is kept."""


def _history(
    spec: TuningSweepSpec,
    number: int,
    records: Sequence[TrialRecord],
    pending: Sequence[Pending],
    pages: Sequence[Page],
) -> list[FrozenTrial]:
    """Trials 0 to number-1: Optuna counts them by their order, so a gap is filled with one that failed."""
    oldest: list[FrozenTrial] = []
    for page in pages:
        if page not in _PAGES:
            _PAGES[page] = [_ended(spec, record) for record in page.rows]
        oldest += _PAGES[page]
    known = {record.number: _ended(spec, record) for record in records}
    known |= {trial.number: _running(spec, trial) for trial in pending}
    return [*oldest, *(known.get(index) or _failed() for index in range(len(oldest), number))]


def _failed() -> FrozenTrial:
    return optuna.trial.create_trial(state=TrialState.FAIL)


def _ended(spec: TuningSweepSpec, record: TrialRecord) -> FrozenTrial:
    """What it is: a trial that was stopped early keeps what it had reached, a failed one its parameters alone."""
    if not space.is_complete(spec.parameters, record.parameters):
        return _failed()
    curve = parse_curve(record.curve)
    if record.result == "Succeeded" and record.values:
        return _trial(
            spec,
            record.parameters,
            TrialState.COMPLETE,
            record.generation,
            values=[float(value) for value in record.values],
            intermediate_values=curve,
            constraints=_violations(spec.constraints or [], record.constraints or []),
        )
    if record.result in ("Pruned", "Stopped") and curve:
        return _trial(spec, record.parameters, TrialState.PRUNED, record.generation, intermediate_values=curve)
    return _trial(spec, record.parameters, TrialState.FAIL, record.generation)


def ended(spec: TuningSweepSpec, records: Sequence[TrialRecord]) -> dict[int, FrozenTrial]:
    """Recorded trials by number, as Optuna has them: for those who look at a study."""
    return {record.number: _ended(spec, record) for record in records}


def _running(spec: TuningSweepSpec, trial: Pending) -> FrozenTrial:
    if not space.is_complete(spec.parameters, trial.parameters):
        return _failed()
    return _trial(spec, trial.parameters, TrialState.RUNNING, trial.generation)


def _trial(
    spec: TuningSweepSpec,
    parameters: space.Configuration,
    state: TrialState,
    generation: int | None,
    *,
    values: Sequence[float] | None = None,
    intermediate_values: Mapping[int, float] | None = None,
    constraints: Mapping[str, float] | None = None,
) -> FrozenTrial:
    used = list(space.active(spec.parameters, parameters))
    made = optuna.trial.create_trial(
        state=state,
        values=values,
        params={p.name: _external(p, parameters[p.name]) for p in used},
        distributions={p.name: distribution(p) for p in used},
        intermediate_values=dict(intermediate_values or {}),
        system_attrs={} if generation is None else {GENERATION_KEY: generation},
        constraints=dict(constraints) if constraints else None,
    )
    made.__class__ = Recorded
    return made


def _violations(constraints: Sequence[Constraint], measured: Sequence[str]) -> dict[str, float]:
    """By how much each bound is broken; zero or less: it is kept."""
    found: dict[str, float] = {}
    for index, (constraint, text) in enumerate(zip(constraints, measured, strict=False)):
        if constraint.upper is not None:
            found[f"{index} upper"] = float(text) - float(constraint.upper)
        if constraint.lower is not None:
            found[f"{index} lower"] = float(constraint.lower) - float(text)
    return found


# --- Values ---


def distribution(parameter: Parameter) -> BaseDistribution:
    """A parameter as Optuna has it."""
    if parameter.choice:
        return CategoricalDistribution(parameter.choice.values)
    if parameter.int:
        whole = parameter.int
        step = whole.step or 1
        high = whole.min + (whole.max - whole.min) // step * step
        return IntDistribution(whole.min, high, log=whole.scale == Scale.LOG, step=step)
    if parameter.double is None:
        raise ValueError(f"{parameter.name} has no range")
    real = parameter.double
    step_size = float(real.step) if real.step else None
    return FloatDistribution(float(real.min), space.highest(real), log=real.scale == Scale.LOG, step=step_size)


def _external(parameter: Parameter, text: str) -> float | int | str:
    if parameter.choice:
        return text
    return int(text) if parameter.int else float(text)


def _text(parameter: Parameter, value: float | int | str) -> str:
    if parameter.double:
        if math.isnan(float(value)):
            raise ValueError(f"the sampler gave {value} for {parameter.name}")
        return space.text_in(parameter.double, float(value))
    return str(value)
