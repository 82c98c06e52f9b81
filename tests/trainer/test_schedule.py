"""Learning rate, weight decay groups, moving average."""

import copy

import pytest
import torch
from torch import nn

from darkroom_api.v1alpha1.vision import Optimizer, Schedule, Vision
from darkroom_trainer.ema import Ema
from darkroom_trainer.errors import ConfigError
from darkroom_trainer.optim import make_optimizer, memory_format, set_learning_rate
from darkroom_trainer.schedule import LearningRate

CPU = torch.device("cpu")


def rate(decay: str, *, epochs: int = 10, warmup: float = 2, per_epoch: float = 10, **fields) -> LearningRate:
    content = {"epochs": epochs, "warmup_epochs": str(warmup), "decay": decay, **fields}
    schedule = Schedule.model_validate(content, strict=False)
    return LearningRate.of(schedule, peak=0.8, steps=round(epochs * per_epoch), steps_per_epoch=per_epoch)


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        pytest.param(rate("Cosine"), 0, 0.04, id="the first step already teaches"),
        pytest.param(rate("Cosine"), 9, 0.4, id="half of the warm-up"),
        pytest.param(rate("Cosine"), 19, 0.8, id="peak"),
        pytest.param(rate("Cosine"), 20, 0.8, id="cosine begins at the peak"),
        pytest.param(rate("Cosine"), 60, 0.4, id="cosine, half-way"),
        pytest.param(rate("Cosine"), 100, 0.0, id="cosine ends at zero"),
        pytest.param(rate("Linear"), 40, 0.6, id="linear, a quarter"),
        pytest.param(rate("Linear"), 100, 0.0, id="linear ends at zero"),
        pytest.param(rate("Step", warmup=0, step_epochs=3, step_factor="0.5"), 29, 0.8, id="step, before the drop"),
        pytest.param(rate("Step", warmup=0, step_epochs=3, step_factor="0.5"), 30, 0.4, id="step, one drop"),
        pytest.param(rate("Step", warmup=0, step_epochs=3, step_factor="0.5"), 95, 0.1, id="step, three drops"),
        pytest.param(rate("Cosine", warmup=0), 0, 0.8, id="no warm-up"),
        pytest.param(rate("Cosine", epochs=1, warmup=5), 9, 0.8, id="a warm-up longer than the run fills it"),
        pytest.param(rate("Linear", warmup=0.25), 1, 0.8, id="a part of an epoch"),
    ],
)
def test_learning_rate(schedule, step, expected):
    assert schedule.at(step) == pytest.approx(expected)


@pytest.mark.parametrize("decay", ["Cosine", "Linear", "Step"])
@pytest.mark.parametrize("steps", [1, 2, 7, 300])
def test_learning_rate_rises_then_never_rises_again(decay, steps):
    schedule = LearningRate(peak=1.0, decay=decay, steps=steps, steps_per_epoch=7.3, warmup_epochs=1)
    rates = [schedule.at(step) for step in range(steps)]
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert all(0 <= r <= 1 for r in rates)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def recipe(**fields: str) -> Optimizer:
    return Optimizer.model_validate(fields, strict=False)


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_norms_and_biases_get_no_weight_decay(name):
    model = net()
    optimizer = make_optimizer([(1.0, list(model.parameters()))], recipe(name=name, weight_decay="0.1"), device=CPU)
    decayed, free = optimizer.param_groups
    assert [p.ndim for p in decayed["params"]] == [4, 2]
    assert decayed["weight_decay"] == 0.1
    assert free["weight_decay"] == 0
    assert len(free["params"]) == 4


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_frozen_weights_stay_as_they_are(name):
    model = net()
    model[0].requires_grad_(requires_grad=False)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    optimizer = make_optimizer([(1.0, list(model.parameters()))], recipe(name=name, weight_decay="0.1"), device=CPU)
    model(torch.randn(4, 3, 4, 4)).sum().backward()
    optimizer.step()
    changed = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])}
    parameters = {name for name, _ in model.named_parameters()}
    assert changed & parameters == {name for name in parameters if not name.startswith("0.")}
    assert len(optimizer.state) == 4


def test_each_group_has_its_share_of_the_learning_rate():
    parameters = list(net().parameters())
    optimizer = make_optimizer([(0.25, parameters[:2]), (1.0, parameters[2:])], Optimizer(), device=CPU)
    set_learning_rate(optimizer, 0.2)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert [rates[id(p)] for p in parameters] == [0.05, 0.05, 0.2, 0.2, 0.2, 0.2]


@pytest.mark.parametrize(
    ("layers", "fields", "device", "expected"),
    [
        ([nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)], {"imageSize": 64}, "cpu", torch.channels_last),
        ([nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)], {"imageSize": 32}, "cpu", torch.contiguous_format),
        ([nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)], {"imageSize": 32}, "cuda", torch.channels_last),
        ([nn.Conv2d(3, 4, 16), nn.Linear(4, 4)], {}, "cuda", torch.contiguous_format),
        ([nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)], {"memoryFormat": "Contiguous"}, "cuda", torch.contiguous_format),
        ([nn.Linear(4, 4)], {"memoryFormat": "ChannelsLast"}, "cpu", torch.channels_last),
    ],
    ids=[
        "convolutional",
        "small images",
        "small on a GPU",
        "a transformer cuts patches by one",
        "told not to",
        "told to",
    ],
)
def test_memory_format(layers, fields, device, expected):
    content = {"data": {"claim": "x"}, "model": {"architecture": "resnet18"}, **fields}
    vision = Vision.model_validate(content, strict=False)
    assert memory_format(vision, nn.Sequential(*layers), torch.device(device)) == expected


def test_a_value_that_torch_refuses_names_the_field():
    with pytest.raises(ConfigError, match=r"vision\.optimizer: .*beta"):
        make_optimizer([(1.0, list(net().parameters()))], recipe(name="AdamW", momentum="1"), device=CPU)


# --- Moving average ---


def test_ema_follows_the_formula_and_copies_counters():
    model = net()
    ema = Ema(model, decay=0.5, batch=1024)
    ema.updates = 1000  # past the warm-up
    before = copy.deepcopy(ema.model.state_dict())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    model[1].num_batches_tracked += 7
    ema.update(ema.model.state_dict(), model.state_dict())
    for name, tensor in ema.model.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, 0.5 * before[name] + 0.5 * model.state_dict()[name])
    assert ema.model[1].num_batches_tracked == 7


def test_ema_forgets_as_much_per_image_at_any_batch():
    half, whole = Ema(net(), decay=0.99, batch=512), Ema(net(), decay=0.99, batch=1024)
    assert half.decay**2 == pytest.approx(whole.decay)


def test_ema_of_a_short_run_is_not_its_initial_weights():
    model = net()
    ema = Ema(model, decay=0.9999, batch=64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    for _ in range(100):
        ema.update(ema.model.state_dict(), model.state_dict())
    assert all((parameter > 0.99).all() for parameter in ema.model.parameters())
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())
