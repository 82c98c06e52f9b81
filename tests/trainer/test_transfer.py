"""Transfer learning: which stages learn when, what frozen ones keep, and that all processes agree on it."""

import pytest
import torch

from darkroom_api.v1alpha1.transfer import Transfer
from darkroom_trainer.data.sampler import Plan
from darkroom_trainer.errors import ConfigError
from darkroom_trainer.models import build_model
from darkroom_trainer.stages import stages_of
from darkroom_trainer.transfer import Layers, Phase, phases_of
from tests.trainer import members
from tests.trainer.processes import together, toy_config
from tests.trainer.test_resume import assert_same

PLAN = Plan(samples=100, batch=30, micro_batch=30, epochs=6, seed=0)  # 20 steps, 3 1/3 an epoch
WEIGHTS = {"architecture": "resnet18", "stem": "SmallImage", "weights": {"claim": "w", "path": "/w.pt"}}


def transfer(**fields) -> Transfer:
    return Transfer.model_validate(fields, strict=False)


# --- The plan ---


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"policy": "None"}, [(0, 20, 0)], id="everything learns"),
        pytest.param({"policy": "Head"}, [(0, 20, 3)], id="the head alone"),
        pytest.param({"policy": "LastStages"}, [(0, 20, 2)], id="the last stage and the head"),
        pytest.param({"policy": "LastStages", "stages": 3}, [(0, 20, 0)], id="as many stages as there are"),
        pytest.param({"policy": "HeadThenAll"}, [(0, 4, 3), (4, 20, 0)], id="a phase begins inside no batch of the last one"),
        pytest.param({"policy": "HeadThenAll", "phaseEpochs": 3}, [(0, 10, 3), (10, 20, 0)], id="three epochs of the head"),
        pytest.param({"policy": "Gradual"}, [(0, 4, 3), (4, 7, 2), (7, 10, 1), (10, 20, 0)], id="a stage an epoch"),
        pytest.param({"policy": "Gradual", "phaseEpochs": 4}, [(0, 14, 3), (14, 20, 2)], id="the run ends before the last"),
    ],
)  # fmt: skip
def test_phases(fields, expected):
    phases = phases_of(transfer(**fields), 4, PLAN, warmup=0)
    assert [(phase.start, phase.end, phase.first) for phase in phases] == expected


def test_more_stages_than_there_are_is_an_error_that_says_how_many():
    with pytest.raises(ConfigError, match=r"vision\.transfer\.stages: this network has 3 stages below its head"):
        phases_of(transfer(policy="LastStages", stages=4), 4, PLAN, warmup=0)


def test_the_learning_rate_rises_again_when_stages_are_opened():
    first, second = phases_of(transfer(policy="HeadThenAll"), 4, PLAN, warmup=3)
    assert {first.ease(step) for step in range(first.start, first.end)} == {1.0}
    assert [second.ease(step) for step in range(4, 9)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert Phase(0, 2, 0).ease(0) == 1


# --- The layers ---


@pytest.fixture
def network():
    model = build_model("resnet18", classes=3, image_size=32, stem="SmallImage")
    return model, stages_of("resnet18", model)


def norms(stages) -> list[bool]:
    """Whether each stage's first BatchNorm follows the batch."""
    found = []
    for stage in stages[:-1]:
        layers = (layer for module in stage.modules for layer in module.modules())
        found.append(next(layer.training for layer in layers if isinstance(layer, torch.nn.BatchNorm2d)))
    return found


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("Train", [False, False, False, True, True]),
        ("Frozen", [False] * 5),
        ("Adapt", [True] * 5),
    ],
)
def test_batchnorm(network, rule, expected):
    model, stages = network
    layers = Layers(model, stages, transfer(batchNorm=rule))
    layers.open(3)
    for _ in range(2):  # as after an evaluation
        model.eval()
        layers.train()
        assert norms(stages) == expected
    learning = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {"layer3", "layer4", "fc"}
    layers.open(0)
    layers.train()
    assert norms(stages) == ([True] * 5 if rule != "Frozen" else [False] * 5)
    assert all(p.requires_grad for p in model.parameters())


def test_each_stage_learns_slower_than_the_one_above_it(network):
    model, stages = network
    rates = Layers(model, stages, transfer(layerDecay="0.5")).rates()
    assert [scale for scale, _ in rates] == [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]
    assert rates[-1][1] == [model.fc.weight, model.fc.bias]


# --- The run ---


def test_processes_agree_on_gradients_in_every_phase(tmp_path):
    """What DDP has wrapped while it was frozen it never synchronises again, without a word."""
    config = toy_config(
        tmp_path, faults={"samples": 96}, model=WEIGHTS, transfer={"policy": "Gradual"}, schedule={"epochs": 4}
    )
    first, second = together(2, members.phases_member, config)
    learning = [{name.split(".")[0] for name in gradients} for gradients in first]
    assert learning == [{"head"}, {"features", "head"}, {"features", "head"}]
    assert "features.0.weight" not in first[1]
    for ours, theirs in zip(first, second, strict=True):
        assert ours.keys() == theirs.keys()
        assert all((ours[name] == theirs[name]).all() for name in ours)


def test_frozen_stages_keep_weights_and_statistics(tmp_path):
    config = toy_config(tmp_path, faults={"samples": 96}, model=WEIGHTS, transfer={"policy": "LastStages"})
    (state,) = together(1, members.gradient_member, config)
    (fresh,) = together(1, members.initial_member, config)
    same = {name for name in state if (state[name] == fresh[name]).all()}
    assert {
        name for name in state if name.startswith(("features.0.", "features.1.", "features.3.", "features.4."))
    } <= same
    assert not {"features.6.weight", "features.7.running_mean", "head.weight"} & same


def test_interrupted_in_one_phase_and_continued_in_another_equals_uninterrupted(tmp_path):
    fields = {"model": WEIGHTS, "transfer": {"policy": "HeadThenAll", "phaseEpochs": 1}, "schedule": {"epochs": 3}}
    whole = toy_config(tmp_path / "whole", faults={"samples": 240}, **fields)
    parts = toy_config(tmp_path / "parts", faults={"samples": 240}, **fields)
    together(2, members.train_member, whole)
    for world, leave_at in ((2, 3), (1, 8)):
        (end, *_) = together(world, members.train_member, parts, leave_at)
        assert end["reason"] == "AskedToLeave"
    (end, *_) = together(2, members.train_member, parts)
    assert end["reason"] == "Completed"
    assert_same(members.newest(tmp_path / "whole/run"), members.newest(tmp_path / "parts/run"))
