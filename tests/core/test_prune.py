"""Pruning: equal to Optuna's pruners, decision by decision, from recorded values alone."""

import json
import math
import random
from typing import Any

import optuna
import pytest

from darkroom_api.v1alpha1.pruning import Pruning
from darkroom_operator.core.tuning_sweep import prune
from darkroom_operator.core.tuning_sweep.curves import parse_curve
from darkroom_operator.core.tuning_sweep.prune import Peer, Question

SEED = "uid-of-search"
PAIRS: list[Any] = [
    pytest.param(
        {"asha": {"minEpochs": 1, "reductionFactor": 3}},
        lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
        id="asha",
    ),
    pytest.param(
        {"asha": {"minEpochs": 2, "reductionFactor": 2}},
        lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=2, reduction_factor=2),
        id="asha of two",
    ),
    pytest.param(
        {"hyperband": {"minEpochs": 1, "maxEpochs": 27, "reductionFactor": 3}},
        lambda: optuna.pruners.HyperbandPruner(min_resource=1, max_resource=27, reduction_factor=3),
        id="hyperband",
    ),
    pytest.param(
        {"asha": {"mode": "Conservative", "minEpochs": 1, "maxEpochs": 27}},
        lambda: optuna.pruners.HyperbandPruner(min_resource=1, max_resource=27, reduction_factor=3),
        id="asha that is conservative",
    ),
    pytest.param(
        {"median": {"startupTrials": 3, "warmupEpochs": 2, "intervalEpochs": 3}},
        lambda: optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=2, interval_steps=3),
        id="median",
    ),
    pytest.param(
        {"percentile": {"percentile": 25, "startupTrials": 2}},
        lambda: optuna.pruners.PercentilePruner(25.0, n_startup_trials=2),
        id="percentile",
    ),
    pytest.param(
        {"threshold": {"lower": "0.2", "upper": "0.9", "warmupEpochs": 4}},
        lambda: optuna.pruners.ThresholdPruner(lower=0.2, upper=0.9, n_warmup_steps=4),
        id="threshold",
    ),
    pytest.param(
        {"patience": {"epochs": 3, "minDelta": "0.01"}},
        lambda: optuna.pruners.PatientPruner(None, patience=3, min_delta=0.01),
        id="patience",
    ),
]


def rule(settings: dict[str, Any]) -> Pruning:
    return Pruning.model_validate_json(json.dumps(settings))


@pytest.mark.parametrize(
    ("settings", "brackets"),
    [
        ({"asha": {"minEpochs": 1, "maxEpochs": 81}}, 1),
        ({"asha": {"mode": "Standard", "minEpochs": 1, "maxEpochs": 81}}, 3),
        ({"asha": {"mode": "Standard", "minEpochs": 3, "maxEpochs": 81}}, 2),
        ({"asha": {"mode": "Conservative", "minEpochs": 1, "maxEpochs": 81}}, 5),
        ({"hyperband": {"minEpochs": 1, "maxEpochs": 81}}, 5),
    ],
)
def test_trials_go_into_as_many_brackets_as_the_mode_says(settings, brackets):
    pruning = rule(settings)
    halving = pruning.asha or pruning.hyperband
    assert {prune.bracket_of(halving, SEED, number) for number in range(300)} == set(range(brackets))


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(("settings", "pruner"), PAIRS)
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_decisions_are_optunas(settings, pruner, direction):
    """27 epochs, four trials at a time in any order, some of which fail; every decision of an unbroken study."""
    rng = random.Random(7)
    study = optuna.create_study(study_name=SEED, direction=direction, pruner=pruner())
    pruning, running, decided = rule(settings), {}, {True: 0, False: 0}
    ended: dict[int, tuple[dict[int, float], bool]] = {}
    for _ in range(900):
        if len(running) < 4:
            trial = study.ask()
            running[trial.number] = (trial, {}, rng.uniform(0.3, 1), rng.uniform(0.05, 0.5))
        number = rng.choice(list(running))
        trial, curve, top, speed = running[number]
        epoch = len(curve) + 1
        value = top * (1 - math.exp(-speed * epoch)) + rng.gauss(0, 0.02)
        curve[epoch] = value
        trial.report(value, epoch)
        peers = [Peer(n, parse_curve(_kept(pruning, c, done)), done) for n, (c, done) in ended.items()]
        peers += [Peer(n, entry[1]) for n, entry in running.items() if n != number]
        ours = prune.verdict(pruning, Question(number, curve, peers, direction == "maximize", SEED)) is not None
        theirs = trial.should_prune()
        assert ours == theirs, (number, epoch)
        decided[theirs] += 1
        if theirs or epoch == 27 or rng.random() < 0.01:
            del running[number]
            done = epoch == 27 and not theirs
            state = optuna.trial.TrialState.PRUNED if theirs else optuna.trial.TrialState.FAIL
            study.tell(trial, value, state=optuna.trial.TrialState.COMPLETE if done else state) if done else study.tell(
                trial, state=state
            )
            ended[number] = (curve, done)
    assert min(decided.values()) > 5, decided


def _kept(pruning: Pruning, curve: dict[int, float], done: bool) -> str:
    """Through the record's one line, as an ended trial is remembered."""
    return " ".join(f"{epoch}:{curve[epoch]!r}" for epoch in prune.kept_epochs(pruning, curve, last=not done))


def question(curve: dict[int, float], *peers: dict[int, float], maximize: bool = True, done: bool = True) -> Question:
    return Question(0, curve, [Peer(n + 1, c, done) for n, c in enumerate(peers)], maximize, SEED)


@pytest.mark.parametrize(
    ("curve", "ends"),
    [
        pytest.param({1: 0.1, 2: 0.1}, False, id="before the first rung"),
        pytest.param({3: 0.1}, True, id="worst at the rung"),
        pytest.param({3: 0.9}, False, id="best at the rung"),
        pytest.param({2: 0.9, 5: 0.1}, True, id="the first value after the rung counts"),
        pytest.param({3: 0.1, 4: 0.1}, False, id="a rung that was passed is not judged again"),
        pytest.param({3: math.nan}, True, id="no number"),
        pytest.param({}, False, id="nothing reported"),
    ],
)
def test_asha(curve, ends):
    pruning = rule({"asha": {"minEpochs": 3, "reductionFactor": 3}})
    why = prune.verdict(pruning, question(curve, {3: 0.5}, {3: 0.6}, {3: 0.7}))
    assert (why is not None) == ends


def test_the_message_says_at_which_rung_and_against_whom():
    why = prune.verdict(rule({"asha": {}}), question({3: 0.1}, {3: 0.5}, {3: 0.6}))
    assert why == "rung 3: 0.1 is number 3 of 3; one of 3 goes on"


def test_a_trial_alone_goes_on():
    assert prune.verdict(rule({"asha": {}}), question({3: 0.1})) is None
    assert prune.verdict(rule({"median": {"startupTrials": 1}}), question({3: 0.1})) is None


def test_brackets_are_spread_and_stable():
    settings = rule({"hyperband": {"maxEpochs": 27}}).hyperband
    brackets = [prune.bracket_of(settings, SEED, number) for number in range(200)]
    assert set(brackets) == {0, 1, 2, 3}
    assert brackets == [prune.bracket_of(settings, SEED, number) for number in range(200)]
    assert brackets.count(0) > brackets.count(3)


def test_what_a_record_keeps():
    curve = {epoch: epoch / 100 for epoch in range(1, 82)}
    assert prune.kept_epochs(rule({"asha": {}}), curve, last=False) == [3, 9, 27, 81]
    assert prune.kept_epochs(rule({"median": {"warmupEpochs": 5, "intervalEpochs": 20}}), curve, last=False) == [
        5,
        25,
        45,
        65,
    ]
    assert len(prune.kept_epochs(rule({"median": {}}), curve, last=False)) == prune.MOST_KEPT
    assert prune.kept_epochs(rule({"patience": {"epochs": 3}}), curve, last=False) == []
    assert prune.kept_epochs(None, curve, last=True) == [81]
    assert prune.kept_epochs(rule({"asha": {}}), {}, last=True) == []
    assert prune.kept_epochs(rule({"asha": {"minSeconds": 20}}), curve, last=False) == [20, 60]
