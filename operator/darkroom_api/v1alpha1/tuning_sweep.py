"""TuningSweep: a search for the best parameters of a training; each trial is a TrainingJob."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field

from darkroom_api.v1alpha1.budget import Direction, Duration, seconds_of
from darkroom_api.v1alpha1.common import Decimal, Model, Rule
from darkroom_api.v1alpha1.pruning import Pruning
from darkroom_api.v1alpha1.search_space import Assignment, Number, Parameter, Place, Value
from darkroom_api.v1alpha1.training_job import TrainingJobSpec, comparable

MAX_TRIALS = 10_000
"""Each has a row in the ledger, which a decision reads as a whole."""
MAX_SWEEP_NAME_LENGTH = 42
"""Trials are called `<name>-00042`, and the last training `<name>-refit-00042`: a TrainingJob's name has 54 at most."""


class Objective(Model):
    """A metric to be made as good as can be."""

    metric: Annotated[
        str, Field(min_length=1, max_length=63, description="Metric as the trainer reports it, such as val/top1.")
    ]
    direction: Annotated[Direction, Field(description="Maximize or Minimize.")] = Direction.MAXIMIZE
    target: Annotated[
        Number | None,
        Field(description="Value that is good enough: the sweep ends with the first trial that reaches it."),
    ] = None


class Constraint(Model):
    """A bound that a trial must keep to be the best."""

    rules = (
        Rule(
            cel="has(self.lower) || has(self.upper)",
            message="at least one of lower and upper must be set",
            holds=lambda c: c.lower is not None or c.upper is not None,
        ),
        Rule(
            cel="!has(self.lower) || !has(self.upper) || double(self.lower) <= double(self.upper)",
            message="lower must not be greater than upper",
            holds=lambda c: c.lower is None or c.upper is None or float(c.lower) <= float(c.upper),
            field="lower",
        ),
    )
    metric: Annotated[str, Field(min_length=1, max_length=63, description="Metric as the trainer reports it.")]
    lower: Annotated[Number | None, Field(description="Smallest value that is allowed.")] = None
    upper: Annotated[Number | None, Field(description="Largest value that is allowed.")] = None


class AlgorithmName(StrEnum):
    """How the next parameters are chosen."""

    AUTO = "Auto"
    TPE = "TPE"
    CMAES = "CMAES"
    NSGAII = "NSGAII"
    GRID = "Grid"
    RANDOM = "Random"


class Algorithm(Model):
    """How the next parameters are chosen. The same history gives the same suggestion."""

    name: Annotated[
        AlgorithmName,
        Field(
            description="Auto: TPE; from 250 completed trials on CMAES where every parameter is a number without conditions, "
            "and NSGAII for several objectives. TPE: tree-structured Parzen estimator. CMAES: evolution strategy for numbers. "
            "NSGAII: genetic, for several objectives. Grid: every combination. Random."
        ),
    ] = AlgorithmName.AUTO
    seed: Annotated[
        int | None,
        Field(
            ge=0,
            le=2147483647,
            description="Two sweeps of one seed try the same. Absent: each sweep has one of its own.",
        ),
    ] = None
    startup_trials: Annotated[int, Field(ge=1, le=1000, description="Random trials before TPE begins to learn.")] = 10


class WarmStart(Model):
    """What is known beforehand."""

    configurations: Annotated[
        list[Annotated[dict[str, Value], Field(min_length=1, max_length=24)]],
        Field(
            min_length=1,
            max_length=32,
            description="Parameters by name that are tried first, in this order; what one leaves out is chosen as ever.",
        ),
    ]


class Stopping(Model):
    """When the search is over. May be changed; a sweep that has ended goes on if the new limits allow it."""

    rules = (
        Rule(
            cel="!has(self.maxGpuHours) || double(self.maxGpuHours) > 0.0",
            message="maxGpuHours must be more than nothing",
            holds=lambda s: s.max_gpu_hours is None or float(s.max_gpu_hours) > 0,
            field="maxGpuHours",
        ),
        Rule(
            cel="!has(self.maxCost) || double(self.maxCost) > 0.0",
            message="maxCost must be more than nothing",
            holds=lambda s: s.max_cost is None or float(s.max_cost) > 0,
            field="maxCost",
        ),
        Rule(
            cel="!has(self.maxDuration) || self.maxDuration.matches('[1-9]')",
            message="maxDuration must be more than nothing",
            holds=lambda s: s.max_duration is None or seconds_of(s.max_duration) > 0,
            field="maxDuration",
        ),
    )
    max_trials: Annotated[
        int, Field(ge=1, le=MAX_TRIALS, description="Trials in all, failed and pruned ones included.")
    ]
    max_failed_trials: Annotated[
        int, Field(ge=0, le=MAX_TRIALS, description="Failed trials that are borne; one more, and the sweep fails.")
    ] = 3
    max_gpu_hours: Annotated[
        Decimal | None, Field(description="Accelerator-hours of all trials, counted at the end of each attempt.")
    ] = None
    max_cost: Annotated[
        Decimal | None,
        Field(description="Cost of all trials by the profile's prices, counted at the end of each attempt."),
    ] = None
    max_duration: Annotated[
        Duration | None, Field(description="Time since the first trial was made, as 12h; suspension counts.")
    ] = None
    no_improvement_trials: Annotated[
        int | None, Field(ge=1, le=MAX_TRIALS, description="Ends after this many finished trials without a better one.")
    ] = None


class TrialTemplate(Model):
    """The training that is tried."""

    rules = (
        Rule(
            cel="!self.spec.suspend",
            message="spec.suspend must be left to the sweep's own suspend",
            holds=lambda t: not t.spec.suspend,
            field="spec",
        ),
    )
    spec: Annotated[
        TrainingJobSpec,
        Field(
            description="A TrainingJob's spec. Parameters replace its values. ttlSecondsAfterFinished: when a trial is deleted, "
            "once its result is on record."
        ),
    ]


class Refit(Model):
    """One last TrainingJob with the best parameters."""

    set: Annotated[
        list[Assignment] | None,
        Field(max_length=16, description="What it does otherwise than a trial: vision.schedule.epochs, say."),
    ] = None


def _indices(spec: "TuningSweepSpec") -> dict[str, int]:
    return {parameter.name: index for index, parameter in reversed(list(enumerate(spec.parameters)))}


def _conditions_look_back(spec: "TuningSweepSpec") -> bool:
    known = _indices(spec)
    return all(
        known.get(condition.parameter, index) < index and spec.parameters[known[condition.parameter]].choice is not None
        for index, parameter in enumerate(spec.parameters)
        for condition in parameter.when or []
    )


def _conditions_can_hold(spec: "TuningSweepSpec") -> bool:
    choices = {p.name: set(p.choice.values) for p in spec.parameters if p.choice}
    return all(
        set(condition.values) <= choices.get(condition.parameter, set(condition.values))
        for parameter in spec.parameters
        for condition in parameter.when or []
    )


def _places_are_free(spec: "TuningSweepSpec") -> bool:
    places = [parameter.path or f"env {parameter.env}" for parameter in spec.parameters]
    return all(p.when or places.count(place) == 1 for p, place in zip(spec.parameters, places, strict=True))


def _all_places(spec: "TuningSweepSpec") -> list[Place]:
    return [*spec.parameters, *((spec.refit.set if spec.refit else None) or [])]


def _paths_exist(spec: "TuningSweepSpec") -> bool:
    in_vision = any(place.path and place.path.startswith("vision.") for place in _all_places(spec))
    return spec.trial_template.spec.vision is not None or not in_vision


def _env_exists(spec: "TuningSweepSpec") -> bool:
    return spec.trial_template.spec.container is not None or not any(place.env for place in _all_places(spec))


def _known_configurations(spec: "TuningSweepSpec") -> bool:
    known = _indices(spec)
    return spec.warm_start is None or all(name in known for c in spec.warm_start.configurations for name in c)


def _numeric(spec: "TuningSweepSpec") -> bool:
    return len(spec.parameters) > 1 and not any(p.choice or p.when for p in spec.parameters)


_ONE = "self.objectives.size() == 1"
_IMMUTABLE = ("objectives", "constraints", "parameters", "algorithm", "pruning", "warmStart", "trialTemplate")


def _immutable(field: str) -> Rule:
    return Rule(
        cel=f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})",
        message=f"{field} is immutable: create a sweep of another name",
        holds=lambda _: True,  # a transition: see sweep_changes
        field=field,
    )


class TuningSweepSpec(Model):
    """What to search for, where, and for how long."""

    rules = (
        Rule(
            cel="self.objectives.all(o, self.objectives.exists_one(other, other.metric == o.metric))",
            message="objectives must have different metrics",
            holds=lambda s: len({o.metric for o in s.objectives}) == len(s.objectives),
            field="objectives",
        ),
        Rule(
            cel="self.parameters.all(p, self.parameters.exists_one(other, other.name == p.name))",
            message="parameters must have different names",
            holds=lambda s: len({p.name for p in s.parameters}) == len(s.parameters),
            field="parameters",
        ),
        Rule(
            cel="[self.parameters.map(e, has(e.choice) ? e.name : '')].all(choices, [self.parameters.map(e, e.name)].all(names, "
            "self.parameters.all(p, !has(p.when) || p.when.all(w, w.parameter in choices && "
            "names.indexOf(w.parameter) < names.indexOf(p.name)))))",
            message="parameters: when must name an earlier parameter of the list that is a choice",
            holds=_conditions_look_back,
            field="parameters",
        ),
        Rule(
            cel="self.parameters.all(p, !has(p.when) || p.when.all(w, self.parameters.all(e, e.name != w.parameter || "
            "!has(e.choice) || w.__in__.all(v, v in e.choice.values))))",
            message="parameters: when must ask for values that the earlier parameter has",
            holds=_conditions_can_hold,
            field="parameters",
        ),
        Rule(
            cel="self.parameters.all(p, has(p.when) || self.parameters.exists_one(o, has(p.path) ? has(o.path) && "
            "o.path == p.path : has(o.env) && has(p.env) && o.env == p.env))",
            message="parameters may share a path or env only if each of them has conditions",
            holds=_places_are_free,
            field="parameters",
        ),
        Rule(
            cel="has(self.trialTemplate.spec.vision) || (!self.parameters.exists(p, has(p.path) && "
            "p.path.startsWith('vision.')) && !(has(self.refit) && has(self.refit.set) && self.refit.set.exists(p, "
            "has(p.path) && p.path.startsWith('vision.'))))",
            message="a path in vision needs a trialTemplate with vision; a container takes env",
            holds=_paths_exist,
            field="parameters",
        ),
        Rule(
            cel="has(self.trialTemplate.spec.container) || (!self.parameters.exists(p, has(p.env)) && "
            "!(has(self.refit) && has(self.refit.set) && self.refit.set.exists(p, has(p.env))))",
            message="env needs a trialTemplate with a container; vision takes a path",
            holds=_env_exists,
            field="parameters",
        ),
        Rule(
            cel="self.algorithm.name != 'Grid' || self.parameters.all(p, !has(p.double) || has(p.double.step))",
            message="algorithm Grid needs a step in every range of real numbers",
            holds=lambda s: s.algorithm.name != "Grid" or all(not p.double or p.double.step for p in s.parameters),
            field="algorithm",
        ),
        Rule(
            cel=f"self.algorithm.name != 'CMAES' || ({_ONE} && self.parameters.size() > 1 && "
            "!self.parameters.exists(p, has(p.choice) || has(p.when)))",
            message="algorithm CMAES is for one objective and two or more numeric parameters without conditions",
            holds=lambda s: s.algorithm.name != "CMAES" or (len(s.objectives) == 1 and _numeric(s)),
            field="algorithm",
        ),
        Rule(
            cel=f"!has(self.pruning) || {_ONE}",
            message="pruning needs a single objective",
            holds=lambda s: s.pruning is None or len(s.objectives) == 1,
            field="pruning",
        ),
        Rule(
            cel=f"!has(self.stopping.noImprovementTrials) || {_ONE}",
            message="stopping.noImprovementTrials needs a single objective",
            holds=lambda s: s.stopping.no_improvement_trials is None or len(s.objectives) == 1,
            field="stopping",
        ),
        Rule(
            cel=f"!self.objectives.exists(o, has(o.target)) || {_ONE}",
            message="objectives may have a target only if there is a single one",
            holds=lambda s: len(s.objectives) == 1 or not any(o.target for o in s.objectives),
            field="objectives",
        ),
        Rule(
            cel=f"!has(self.refit) || {_ONE}",
            message="refit needs a single objective: of several, people choose",
            holds=lambda s: s.refit is None or len(s.objectives) == 1,
            field="refit",
        ),
        Rule(
            cel="!has(self.warmStart) || self.warmStart.configurations.all(c, c.all(k, self.parameters.exists(p, p.name == k)))",
            message="warmStart.configurations must have names of parameters as keys",
            holds=_known_configurations,
            field="warmStart",
        ),
        Rule(
            cel="!has(self.warmStart) || self.warmStart.configurations.size() <= self.stopping.maxTrials",
            message="warmStart.configurations must not be more than stopping.maxTrials",
            holds=lambda s: s.warm_start is None or len(s.warm_start.configurations) <= s.stopping.max_trials,
            field="warmStart",
        ),
    )
    transitions: ClassVar[tuple[Rule, ...]] = tuple(_immutable(field) for field in _IMMUTABLE)

    objectives: Annotated[
        list[Objective],
        Field(min_length=1, max_length=3, description="What the best trial is best at. With several: a Pareto front."),
    ]
    constraints: Annotated[
        list[Constraint] | None, Field(max_length=4, description="Bounds that the best trial must keep.")
    ] = None
    parameters: Annotated[
        list[Parameter], Field(min_length=1, max_length=24, description="What is varied. Cannot be changed.")
    ]
    algorithm: Annotated[Algorithm, Field(description="How the next parameters are chosen. Cannot be changed.")] = (
        Algorithm()
    )
    pruning: Annotated[
        Pruning | None, Field(description="How trials are stopped early. Absent: every trial runs to its end.")
    ] = None
    warm_start: Annotated[WarmStart | None, Field(description="What is known beforehand.")] = None
    stopping: Annotated[Stopping, Field(description="When the search is over. May be changed.")]
    parallelism: Annotated[
        int, Field(ge=1, le=200, description="Trials at the same time. May be changed; fewer let running ones end.")
    ] = 1
    trial_template: Annotated[TrialTemplate, Field(description="The training that is tried.")]
    refit: Annotated[
        Refit | None, Field(description="One last TrainingJob with the best parameters. Absent: none. May be changed.")
    ] = None
    suspend: Annotated[
        bool,
        Field(
            description="True: no new trials, and running ones are suspended. False again: they go on. May be changed."
        ),
    ] = False


def sweep_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Messages for what an update of a spec (wire form, defaults filled in) may not change; the CRD's transition rules."""

    def same(field: str) -> bool:
        if field == "trialTemplate":
            return bool(comparable(old.get(field)) == comparable(new.get(field)))
        return bool(old.get(field) == new.get(field))

    return [
        rule.message for field, rule in zip(_IMMUTABLE, TuningSweepSpec.transitions, strict=True) if not same(field)
    ]


SWEEP_NAME_RULE = Rule(
    cel=f"size(self.metadata.name) <= {MAX_SWEEP_NAME_LENGTH} && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
    message=f"metadata.name must be at most {MAX_SWEEP_NAME_LENGTH} lower-case letters, digits and hyphens, beginning with a "
    "letter: trials are called <name>-<number>",
    holds=lambda name: (
        len(name) <= MAX_SWEEP_NAME_LENGTH and re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) is not None
    ),
)
