"""Pretrained weights from a file: every form they come in, and every way in which they can be wrong."""

import logging
from hashlib import sha256
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from darkroom_trainer.errors import ConfigError
from darkroom_trainer.models import build_model, head_keys, spare_keys
from darkroom_trainer.weights import load_weights, named_weights

HEAD = head_keys("resnet18", 32)


def resnet(classes: int = 3, seed: int = 0, **options) -> nn.Module:
    return build_model("resnet18", classes=classes, image_size=32, seed=seed, **options)


def equal(first: nn.Module, second: nn.Module, without: frozenset[str] = frozenset()) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return all(torch.equal(ours[key], theirs[key]) for key in ours if key not in without)


def prefixed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"module.{key}": tensor for key, tensor in state.items()}


def without_counters(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}


FORMS = [
    pytest.param("w.pt", lambda state: state, id="bare"),
    pytest.param("w.pth", lambda state: {"state_dict": state, "epoch": 3}, id="state_dict among other things"),
    pytest.param("w.pth", lambda state: {"model": state, "args": {"lr": 0.1}}, id="model among other things"),
    pytest.param("w.pth", lambda state: {"state_dict": prefixed(state)}, id="saved under DDP"),
    pytest.param("w.pt", without_counters, id="older than BatchNorm's counters"),
    pytest.param("w.safetensors", lambda state: state, id="safetensors"),
    pytest.param("w.safetensors", prefixed, id="safetensors saved under DDP"),
]


def save(content, path: Path) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(content, path)
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_every_form_loads(tmp_path, name, form):
    source, model = resnet(seed=1), resnet(seed=2)
    path = save(form(source.state_dict()), tmp_path / name)
    report = load_weights(model, path, sha256=sha256(path.read_bytes()).hexdigest(), head=HEAD)
    assert equal(model, source)
    assert report.dropped == ()
    assert set(report.kept) >= HEAD


def test_a_head_for_other_classes_is_left_out_and_named(tmp_path, caplog):
    source, model = resnet(classes=1000, seed=1), resnet(classes=3, seed=2)
    path = save(source.state_dict(), tmp_path / "w.pth")
    with caplog.at_level(logging.INFO):
        report = load_weights(model, path, head=HEAD)
    assert report.dropped == ("fc.bias", "fc.weight")
    assert len(report.kept) + 2 == len(model.state_dict())
    assert "left out: fc.bias, fc.weight" in caplog.text
    assert equal(model, source, without=HEAD)
    assert equal(model.fc, resnet(seed=2).fc), "the new head stays as the seed made it"


def test_half_precision_is_widened(tmp_path):
    source, model = resnet(seed=1), resnet(seed=2)
    path = save({key: tensor.half() for key, tensor in source.state_dict().items()}, tmp_path / "w.safetensors")
    load_weights(model, path)
    assert model.conv1.weight.dtype == torch.float32
    torch.testing.assert_close(model.conv1.weight, source.conv1.weight, atol=1e-3, rtol=1e-3)


def changed(**changes):
    def change(state):
        return {key: tensor for key, tensor in (state | changes).items() if tensor is not None}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(changed(**{"conv1.weight": None}), r"missing 1 \(conv1\.weight\)", id="missing"),
        pytest.param(changed(extra=torch.ones(1)), r"unexpected 1 \(extra\)", id="unexpected"),
        pytest.param(
            changed(**{"conv1.weight": torch.ones(64, 3, 3, 3)}),
            r"shape 1 \(conv1\.weight \[64, 3, 3, 3\] instead of \[64, 3, 7, 7\]\)", id="shape",
        ),
        pytest.param(
            changed(**{"fc.weight": torch.ones(9, 256), "fc.bias": torch.ones(9)}),
            r"shape 2 \(fc\.weight \[9, 256\] instead of \[3, 512\]", id="head of another width",
        ),
        pytest.param(
            changed(**{"fc.weight": torch.ones(9, 512)}), r"shape 1 \(fc\.weight", id="half a head of other classes",
        ),
        pytest.param(changed(**{"fc.weight": None, "fc.bias": None}), r"missing 2 \(fc\.weight, fc\.bias\)", id="no head"),
        pytest.param(lambda _: resnet(stem="SmallImage").state_dict(), r"conv1\.weight", id="another stem"),
        pytest.param(
            lambda _: build_model("resnet50", classes=3, image_size=32).state_dict(),
            r"unexpected 198 \((layer1\.0\.[\w.]+(, )?){5}\); shape \d+$", id="another network",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_and_nothing_is_loaded(tmp_path, change, message):
    model = resnet(seed=2)
    path = save(change(resnet(seed=1).state_dict()), tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=message) as raised:
        load_weights(model, path, head=HEAD)
    assert str(path) in str(raised.value)
    assert equal(model, resnet(seed=2))


def test_a_wrong_digest_is_told_before_the_file_is_parsed(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"whatever")
    actual = sha256(b"whatever").hexdigest()
    with pytest.raises(ConfigError, match=f"{path} have SHA-256 {actual}, but {'0' * 64} was expected"):
        load_weights(resnet(), path, sha256="0" * 64)


class Malicious:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        pytest.param("absent.pth", lambda _: None, "No such file", id="missing"),
        pytest.param("w.pth", Path.mkdir, "Is a directory", id="a folder"),
        pytest.param("w.pth", lambda path: path.write_bytes(b"junk"), "cannot be parsed", id="junk"),
        pytest.param("w.safetensors", lambda path: path.write_bytes(b"junk"), "cannot be parsed", id="short junk"),
        pytest.param(
            "w.pth", lambda path: torch.save(Malicious(path.with_name("trace")), path), "cannot be parsed", id="code"
        ),
        pytest.param("w.pth", lambda path: torch.save([1, 2], path), "hold no state dict", id="a list"),
        pytest.param("w.pth", lambda path: torch.save({"lr": 0.1}, path), "no tensor under lr", id="no tensors"),
        pytest.param("w.onnx", lambda path: path.write_bytes(b"junk"), "must be a .safetensors", id="other kind"),
    ],
)
def test_an_unusable_file_is_named(tmp_path, name, write, message):
    write(tmp_path / name)
    with pytest.raises(ConfigError, match=message) as raised:
        load_weights(resnet(), tmp_path / name)
    assert name in str(raised.value)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("architecture", "size", "old_names"),
    [
        pytest.param(
            "densenet121", 32, lambda key: key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."), id="DenseNet"
        ),
        pytest.param(
            "vit_b_32",
            32,
            lambda key: key.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."),
            id="ViT",
        ),
        pytest.param("mnasnet0_5", 32, lambda key: key, id="MNASNet, which wants a version number"),
    ],
)
def test_files_as_torchvision_publishes_them(tmp_path, architecture, size, old_names):
    source, model = (build_model(architecture, classes=3, image_size=size, seed=seed) for seed in (1, 2))
    state = {old_names(key): tensor for key, tensor in source.state_dict().items()}
    load_weights(model, save(state, tmp_path / "w.safetensors"), head=head_keys(architecture, size))
    assert equal(model, source)


def test_inception_for_small_images_leaves_the_auxiliary_head_of_a_file_out(tmp_path):
    source = build_model("inception_v3", classes=10, image_size=299, seed=1)
    model = build_model("inception_v3", classes=3, image_size=128, seed=2)
    head, spare = head_keys("inception_v3", 128), spare_keys("inception_v3", 128)
    report = load_weights(model, save(source.state_dict(), tmp_path / "w.pth"), head=head, spare=spare)
    assert {key.split(".")[0] for key in report.dropped} == {"fc", "AuxLogits"}
    assert torch.equal(model.Mixed_7c.branch1x1.conv.weight, source.Mixed_7c.branch1x1.conv.weight)


# --- By name ---

FILE = "resnet18-f37072fd.pth"
NAME = "ResNet18_Weights.IMAGENET1K_V1"


@pytest.mark.parametrize("place", ["hub/checkpoints", "checkpoints", "."])
def test_a_name_is_looked_for_where_torch_keeps_its_files(tmp_path, place):
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    path = save(resnet().state_dict(), tmp_path / place / FILE)
    assert named_weights(NAME, ["resnet18"], tmp_path) == (path, "f37072fd")


def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path):
    path = save(resnet().state_dict(), tmp_path / FILE)
    with pytest.raises(ConfigError, match=r"SHA-256 [0-9a-f]{64}, but the file's name says f37072fd: it is damaged"):
        load_weights(resnet(), path, prefix="f37072fd")
    load_weights(resnet(), path, prefix=sha256(path.read_bytes()).hexdigest()[:8])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param(
            "ResNet18_Weights.IMAGENET1K_V9", r"torchvision has no weights 'ResNet18_Weights", id="no version"
        ),
        pytest.param("ResNet19_Weights.DEFAULT", r"torchvision has no weights 'ResNet19_Weights", id="no network"),
        pytest.param(
            "ResNet50_Weights.IMAGENET1K_V2", r"are not for resnet18, which has .*IMAGENET1K_V1", id="another's"
        ),
        pytest.param(NAME, rf"is {FILE}, which is in none of .*hub/checkpoints", id="not there"),
    ],
)
def test_a_name_that_cannot_be_used_says_why(tmp_path, name, message):
    with pytest.raises(ConfigError, match=message):
        named_weights(name, ["resnet18"], tmp_path)
