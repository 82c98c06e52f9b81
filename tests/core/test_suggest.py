"""Suggestions: the same for the same history, whatever happened in between, and no combination twice."""

import random

import optuna
import pytest

from darkroom_api.v1alpha1.tuning_sweep import TuningSweepSpec
from darkroom_api.v1alpha1.tuning_sweep_status import TrialRecord
from darkroom_operator.core.tuning_sweep import space
from darkroom_operator.core.tuning_sweep.suggest import (
    Pending,
    _seed,
    algorithm_now,
    distribution,
    importances,
    suggest,
)
from tests.core.sweep_world import SPACE, spec_of

NAMES = ["Random", "TPE", "CMAES", "NSGAII"]
MIXED = [
    {"name": "model", "env": "MODEL", "choice": {"values": ["small", "big"]}},
    *SPACE,
    {
        "name": "drop",
        "env": "DROP",
        "double": {"min": "0", "max": "0.5"},
        "when": [{"parameter": "model", "in": ["big"]}],
    },
]


def goodness(parameters) -> float:
    """Best at lr 0.01 and width 32."""
    return -abs(float(parameters["lr"]) - 0.01) * 10 - abs(int(parameters["width"]) - 32) / 64


def play(spec: TuningSweepSpec, trials: int, *, parallel: int = 1, seed: int = 0) -> list[dict[str, str]]:
    """A search in which trials end in any order; some fail, some are pruned. Returns what each tried."""
    rng = random.Random(seed)
    records: list[TrialRecord] = []
    pending: list[Pending] = []
    tried: list[dict[str, str]] = []
    while len(tried) < trials:
        suggestion = suggest(spec, "a-sweep", len(tried), records, pending)
        again = suggest(spec, "a-sweep", len(tried), rng.sample(records, len(records)), list(reversed(pending)))
        assert suggestion == again, "the order in which facts are gathered says nothing"
        assert suggestion is not None
        assert space.is_complete(spec.parameters, suggestion.parameters)
        pending.append(Pending(len(tried), suggestion.parameters, suggestion.generation))
        tried.append(suggestion.parameters)
        while len(pending) >= parallel:
            records.append(ended(pending.pop(rng.randrange(len(pending))), rng))
    return tried


def ended(trial: Pending, rng: random.Random) -> TrialRecord:
    common = {"number": trial.number, "parameters": dict(trial.parameters), "generation": trial.generation}
    draw = rng.random()
    if draw < 0.1:
        return TrialRecord(result="Failed", **common)
    if draw < 0.3:
        return TrialRecord(result="Pruned", curve=f"3:{goodness(trial.parameters):.4f}", **common)
    return TrialRecord(result="Succeeded", values=[f"{goodness(trial.parameters):.6f}"], **common)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("parallel", [1, 4])
def test_the_same_history_gives_the_same_suggestions(name, parallel):
    spec = spec_of(algorithm={"name": name})
    assert play(spec, 40, parallel=parallel) == play(spec, 40, parallel=parallel)


@pytest.mark.parametrize("name", ["Random", "TPE", "NSGAII"])
def test_choices_and_conditions(name):
    tried = play(spec_of(algorithm={"name": name}, parameters=MIXED), 30, parallel=3)
    assert {parameters["model"] for parameters in tried} == {"small", "big"}
    assert all(("drop" in parameters) == (parameters["model"] == "big") for parameters in tried)


@pytest.mark.parametrize("name", NAMES)
def test_no_two_numbers_have_the_same_stream(name):
    tried = play(spec_of(algorithm={"name": name}), 12)
    assert len({tuple(sorted(parameters.items())) for parameters in tried}) == 12


@pytest.mark.parametrize("name", ["TPE", "CMAES"])
def test_they_learn(name):
    """The second half of a search is nearer to the best than the first, which a random search is not."""
    tried = play(spec_of(algorithm={"name": name}), 60, parallel=2)
    first, second = (sorted(map(goodness, half))[15] for half in (tried[:30], tried[30:]))
    assert second > first


def test_a_sweep_without_a_seed_has_its_own():
    spec = spec_of(algorithm={"name": "Random"})
    assert suggest(spec, "one", 0, [], []) != suggest(spec, "another", 0, [], [])


def test_a_rebuilt_study_suggests_what_an_unbroken_one_does():
    """Against Optuna itself: one study that is told of each trial, with the sampler seeded anew for each ask as here."""
    spec = spec_of(algorithm={"name": "TPE"})
    rebuilt = play_well(spec, 25)
    study = optuna.create_study(direction="maximize")
    for number, parameters in enumerate(rebuilt):
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=10, seed=_seed(f"a-sweep/{number}/0"))
        trial = study.ask({p.name: distribution(p) for p in spec.parameters})
        ours = {name: float(text) for name, text in parameters.items()}
        assert trial.params == pytest.approx(ours, rel=1e-4), number  # ours have six digits, and learn from such
        study.tell(trial, goodness(parameters))


def play_well(spec: TuningSweepSpec, trials: int) -> list[dict[str, str]]:
    records: list[TrialRecord] = []
    for number in range(trials):
        parameters = suggest(spec, "a-sweep", number, records, []).parameters
        value = repr(goodness(parameters))[:24]
        records.append(TrialRecord(number=number, result="Succeeded", parameters=parameters, values=[value]))
    return [record.parameters for record in records]


def test_warm_starts_come_first_and_what_they_leave_out_is_chosen():
    warm = {"configurations": [{"lr": "0.01", "width": "32"}, {"width": "8"}]}
    for name in NAMES:
        tried = play(spec_of(algorithm={"name": name}, warmStart=warm), 3)
        assert tried[0] == {"lr": "0.01", "width": "32"}, name
        assert tried[1]["width"] == "8"


SMALL = [
    {"name": "model", "env": "MODEL", "choice": {"values": ["a", "b"]}},
    {"name": "width", "env": "WIDTH", "int": {"min": 1, "max": 3}},
]


@pytest.mark.parametrize("name", ["Random", "TPE", "Grid", "NSGAII"])
def test_a_small_space_is_tried_once_and_then_over(name):
    spec = spec_of(algorithm={"name": name}, parameters=SMALL)
    records, pending = [], []
    for number in range(6):
        suggestion = suggest(spec, "s", number, records, pending)
        assert suggestion is not None
        pending.append(Pending(number, suggestion.parameters))
    assert {(p.parameters["model"], p.parameters["width"]) for p in pending} == {(m, w) for m in "ab" for w in "123"}
    assert suggest(spec, "s", 6, records, pending) is None


def test_grid_goes_in_order_and_closes_gaps():
    spec = spec_of(algorithm={"name": "Grid"}, parameters=SMALL)
    done = [TrialRecord(number=0, result="Failed", parameters={"model": "a", "width": "2"})]
    assert suggest(spec, "s", 1, done, []).parameters == {"model": "a", "width": "1"}
    assert suggest(spec, "s", 2, done, [Pending(1, {"model": "a", "width": "1"})]).parameters["width"] == "3"


def _succeeded(count: int) -> list[TrialRecord]:
    rng = random.Random(1)
    values = [{"lr": f"{rng.uniform(0.001, 0.1):.5f}", "width": str(rng.randint(1, 64))} for _ in range(count)]
    return [
        TrialRecord(number=n, result="Succeeded", parameters=p, values=[f"{goodness(p):.6f}"])
        for n, p in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "CMAES"),
        ({"parameters": MIXED}, "TPE"),
        ({"constraints": [{"metric": "ms", "upper": "1"}]}, "TPE"),
        ({"objectives": [{"metric": "a"}, {"metric": "b"}]}, "NSGAII"),
        ({"parameters": SPACE[:1]}, "TPE"),
    ],
)
def test_auto(changes, expected):
    spec = spec_of(algorithm={"name": "Auto"}, **changes)
    assert algorithm_now(spec, _succeeded(249)) == "TPE"
    assert algorithm_now(spec, _succeeded(250)) == expected


def test_auto_goes_on_from_the_best_that_it_knows():
    records = _succeeded(250)
    suggestion = suggest(spec_of(algorithm={"name": "Auto"}), "s", 250, records, [])
    assert suggestion.generation == 0
    spread = [suggest(spec_of(algorithm={"name": "Auto"}), "s", n, records, []).parameters for n in range(250, 260)]
    best = max(records, key=lambda record: float(record.values[0])).parameters
    middle = sorted(int(parameters["width"]) for parameters in spread)[5]
    assert abs(middle - int(best["width"])) < 16


def test_a_record_that_fits_no_more_counts_as_failed():
    """Somebody edited an annotation, say."""
    strange = [TrialRecord(number=0, result="Succeeded", parameters={"lr": "7", "depth": "3"}, values=["1"])]
    assert suggest(spec_of(algorithm={"name": "TPE"}), "s", 1, strange, [Pending(0, {"a": "b"})])


def test_constraints_reach_the_sampler():
    """TPE prefers what keeps them: values that break the bound are worth nothing, however good."""
    rng = random.Random(3)
    records = []
    for number in range(60):
        width = rng.randint(1, 64)
        records.append(
            TrialRecord(
                number=number,
                result="Succeeded",
                parameters={"lr": "0.01", "width": str(width)},
                values=[str(width)],
                constraints=[str(width)],
            )
        )
    spec = spec_of(algorithm={"name": "TPE"}, constraints=[{"metric": "ms", "upper": "20"}])
    tried = [int(suggest(spec, "s", n, records, []).parameters["width"]) for n in range(60, 72)]
    assert sum(width <= 24 for width in tried) >= 9


def test_importances():
    spec = spec_of(algorithm={"name": "Random"}, parameters=MIXED)
    tried = play(spec, 30)
    rows = [
        TrialRecord(number=n, result="Succeeded", parameters=p, values=[str(int(p["width"]) / 64)])
        for n, p in enumerate(tried)
    ]
    found = importances(spec, rows)
    assert set(found) == {"model", "lr", "width", "drop"}
    assert max(found, key=lambda name: float(found[name])) == "width"
    assert sum(map(float, found.values())) == pytest.approx(1, abs=0.001)
    assert importances(spec, []) is None
    assert importances(spec_of(objectives=[{"metric": "a"}, {"metric": "b"}]), rows) is None
